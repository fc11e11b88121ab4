"""Picture files found by name, and read one after another in constant memory."""

from __future__ import annotations

import glob
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadInput, LatentCriticError, UnreadableFile

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

#: The file names that a folder is searched for. A file that is named itself may have any name.
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2"})

#: Pixels that may wait, decoded, before they are asked for: 48 million are 576 MB of float32 RGB.
PIXELS_AHEAD = 48_000_000


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One file's pixels, or the reason why there are none.

    Attributes:
        path: As it was found.
        index: Place in the list that was streamed.
        image: float32 [3, H, W] in [0, 1], or ``None``.
        reason: Why the file could not be read; ``None`` exactly when there are pixels.
    """

    path: Path
    index: int
    image: Tensor | None
    reason: str | None = None


def natural_key(text: str | Path) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that counts: ``image2`` comes before ``image10``, and case does not matter."""
    parts = re.split(r"([0-9]+)", str(text).casefold())
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)


def find_images(
    inputs: Sequence[str | Path] = (),
    list_file: str | Path | None = None,
    on_locked: Callable[[Path], object] | None = None,
) -> list[Path]:
    """Pictures named by files, folders (searched recursively), glob patterns and a list file, in that order.

    Inside a folder or pattern files come in natural order; hidden files are left out; a file named twice counts once.
    Links to files are followed, links to folders inside a folder are not.

    Args:
        inputs: Files, folders and patterns (``**`` crosses folders).
        list_file: A UTF-8 file with one path a line, or ``-`` for standard input. What it names is taken as it is: a
            missing file becomes a reason when it is read, not an error here.
        on_locked: Told of each folder that may not be read; ``None`` logs a warning.

    Raises:
        BadInput: nothing was named, or a folder or pattern holds no picture.
        UnreadableFile: a named file or the list file does not exist.
    """
    found: dict[str, Path] = {}
    listed = _read_list(list_file) if list_file is not None else ()
    for path in (*_expand_all(inputs, on_locked or _warn_locked), *listed):
        found.setdefault(os.path.realpath(path), path)
    if not found:
        raise BadInput("at least one picture", "none", "Name a picture, a folder, a pattern, or --list FILE.")
    return list(found.values())


def _warn_locked(folder: Path) -> None:
    _log.warning("The folder %s may not be read; what is in it is left out.", folder)


def _expand_all(inputs: Iterable[str | Path], on_locked: Callable[[Path], object]) -> Iterator[Path]:
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            yield from _in_folder(path, on_locked)
        elif path.is_file():
            yield path
        elif glob.has_magic(str(given)):
            yield from _in_pattern(str(path), on_locked)
        else:
            got = "a pipe, a device or a broken link" if os.path.lexists(path) else "no such file or folder"
            raise UnreadableFile(f"a picture or folder at {path}", got, "Check the path.")


def _in_folder(folder: Path, on_locked: Callable[[Path], object]) -> list[Path]:
    found: list[Path] = []

    def locked(error: OSError) -> None:
        on_locked(Path(error.filename))

    for parent, folders, names in os.walk(folder, onerror=locked):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if _is_picture(name)]
    if not found:
        kinds = " ".join(sorted(EXTENSIONS))
        raise BadInput(f"pictures in the folder {folder}", "none", f"It is searched recursively for {kinds}.")
    return sorted(found, key=natural_key)


def _in_pattern(pattern: str, on_locked: Callable[[Path], object]) -> Iterator[Path]:
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (patterns may be absolute)
    # A folder under ** is matched as well as the files in it, so only files count here.
    files = [path for path in matches if path.is_file() and _is_picture(path.name)]
    if files:
        yield from sorted(files, key=natural_key)
    elif folders := [path for path in matches if path.is_dir()]:
        for folder in sorted(folders, key=natural_key):
            yield from _in_folder(folder, on_locked)
    else:
        raise BadInput(f"pictures that match {pattern}", "none", "Check the pattern and quote it for the shell.")


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _read_list(list_file: str | Path) -> list[Path]:
    try:
        text = sys.stdin.read() if str(list_file) == "-" else Path(list_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(
            f"a text file with one path a line at {list_file}", f"{type(error).__name__}: {error}", "Check --list."
        ) from error
    # Only line feeds part the lines: a name may hold U+2028 and others at which splitlines parts.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if "\0" in text:
        raise BadInput(f"one path a line in {list_file}", "a NUL byte", "Write the list with line feeds.")
    paths = [Path(line).expanduser() for line in lines if line.strip()]
    if not paths:
        raise BadInput(f"one path a line in {list_file}", "an empty list", "Check how the list was written.")
    return paths


def stream_images(paths: Sequence[Path], ahead: int = 4, threads: int = 2) -> Iterator[LoadedImage]:
    """Read pictures in order, decoding a few ahead of the caller.

    At most ``ahead`` pictures and (beyond the first) :data:`PIXELS_AHEAD` pixels wait at any time, however many paths
    there are. A file that cannot be read gives a reason; the others still come.
    """
    if ahead < 1 or threads < 1:
        raise BadInput("ahead and threads of at least 1", f"{ahead}, {threads}", "Use 1 to read without reading ahead.")
    waiting: deque[tuple[int, Future[LoadedImage]]] = deque()
    coming = enumerate(paths)
    upcoming = next(coming, None)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="latent-critic-read")
    try:
        while waiting or upcoming is not None:
            while upcoming is not None and len(waiting) < ahead:
                index, path = upcoming
                pixels = _pixels(path)
                if waiting and sum(count for count, _ in waiting) + pixels > PIXELS_AHEAD:
                    break
                waiting.append((pixels, pool.submit(_load, path, index)))
                upcoming = next(coming, None)
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pixels(path: Path) -> int:
    """Width times height by the file's header; 0 when it has none that can be read (then nothing will be decoded)."""
    from .images import picture_size

    try:
        width, height = picture_size(path)
    except UnreadableFile:
        return 0
    return width * height


def _load(path: Path, index: int) -> LoadedImage:
    from .images import load_image

    try:
        return LoadedImage(path, index, load_image(path))
    except LatentCriticError as error:
        return LoadedImage(path, index, None, error.got)


def batches(loaded: Iterable[LoadedImage], size: int, pixels: int = PIXELS_AHEAD) -> Iterator[list[LoadedImage]]:
    """Group a stream into lists of at most ``size`` images and (beyond the first image) ``pixels`` pixels."""
    if size < 1:
        raise BadInput("a batch size of at least 1", str(size), "Use 1 or more.")
    group: list[LoadedImage] = []
    held = 0
    for item in loaded:
        count = 0 if item.image is None else item.image.shape[1] * item.image.shape[2]
        if group and (len(group) >= size or held + count > pixels):
            yield group
            group, held = [], 0
        group.append(item)
        held += count
        del item
    if group:
        yield group
