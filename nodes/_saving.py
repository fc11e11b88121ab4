"""Where a scored image is saved: file names from a pattern, a place that nobody else has, all or nothing."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import folder_paths
from comfy.cli_args import args
from PIL import Image, PngImagePlugin

from ..core.errors import BadInput, UnwritableFile
from ..core.files import whole_file
from ..core.records import Score

#: What a pattern may name besides ComfyUI's own %year% … %width%.
TOKENS = ("score", "rank", "index", "seed", "name")


def expand(pattern: str, score: Score, rank: int, scale: tuple[float, float] | None) -> str:
    """A file-name pattern with this image's score, rank and so on put in; the score is written by :func:`_numeral`."""
    values = {
        "score": "unscored" if score.value is None else _numeral(score.value, scale),
        "rank": f"{rank:03d}",
        "index": f"{score.index:03d}",
        "seed": "none" if score.seed is None else str(score.seed),
        "name": Path(str(score.attributes.get("name") or "image")).stem,
    }
    for token in TOKENS:
        pattern = pattern.replace(f"%{token}%", _safe(values[token]))
    return pattern


def _numeral(value: float, scale: tuple[float, float] | None) -> str:
    """A score in a file name.

    On a scale from 0 of 10 or more: "07.50", "81.25", as wide as its highest value, so that files sort by score. On
    any other scale with a sign and four significant digits, which tell near scores apart: "+0.1134", "-0.002834".
    """
    if scale is None or scale[0] < 0 or scale[1] < 10:
        return f"{value:+#.4g}"
    # 100 gets two digits like the rest of its scale.
    whole = len(f"{max(1, math.ceil(scale[1]) - 1):d}")
    return f"{value:0{whole + 3}.2f}"


def folder_and_stem(pattern: str, width: int, height: int) -> tuple[Path, str, int, str]:
    """A pattern → folder, start of the file name, first number to try, folder relative to ComfyUI's output folder.

    A link inside the output folder is followed, wherever it leads: only the path as it is written has to stay inside,
    which is ComfyUI's own rule.

    Raises:
        BadInput: the pattern leads out of the output folder, or is no file name.
        UnwritableFile: its folder cannot be made.
    """
    output = folder_paths.get_output_directory()
    if "\0" in pattern:
        raise BadInput("a file name", repr(pattern), "Take the NUL character out of it.")
    if os.path.normpath(pattern) == os.curdir:
        raise BadInput("a file name", repr(pattern), "Write for example: LatentCritic/%score%")
    base = Path(os.path.normpath(Path(output).absolute()))
    if not Path(os.path.normpath(base / pattern)).is_relative_to(base):
        raise BadInput("a file name inside ComfyUI's output folder", pattern, "Leave out '..' and absolute paths.")
    try:
        folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(pattern, output, width, height)
    except OSError as error:
        raise unwritable(Path(output, pattern), error) from error
    return Path(folder), stem, counter, subfolder


@contextmanager
def new_file(folder: Path, stem: str, number: int) -> Iterator[tuple[Path, Path]]:
    """Reserve the first free ``stem_00001_.png``; yields (temporary path to write, final path).

    The final file is whole or absent, and never one that existed before.

    Raises:
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    final = _reserve(folder, stem, number)
    try:
        with whole_file(final) as temporary:
            yield temporary, final
    except OSError as error:
        final.unlink(missing_ok=True)
        raise unwritable(final, error) from error
    except BaseException:
        final.unlink(missing_ok=True)
        raise


def _reserve(folder: Path, stem: str, number: int) -> Path:
    while True:
        path = folder / f"{stem}_{number:05}_.png"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise unwritable(path, error) from error
        else:
            return path


def write_png(path: Path, picture: Image.Image, texts: Mapping[str, str]) -> None:
    """A PNG with text entries."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    picture.save(path, format="PNG", pnginfo=info, compress_level=4)


def comfyui_texts(hidden: Any) -> dict[str, str]:
    """The prompt and workflow as ComfyUI's Save Image writes them; nothing under --disable-metadata."""
    if args.disable_metadata or hidden is None:
        return {}
    texts = {} if hidden.prompt is None else {"prompt": json.dumps(hidden.prompt)}
    return texts | {name: json.dumps(value) for name, value in (hidden.extra_pnginfo or {}).items()}


def append(path: Path, text: str, header: str = "") -> None:
    """Add whole lines to a log, with a header where the file is new; on any error the log is as it was.

    A last line that was left without an end, as by an editor, gets one first.

    Raises:
        UnwritableFile: the disk is full, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as log:
            before = log.seek(0, os.SEEK_END)
            start = header if before == 0 else "" if _ends_its_line(log) else "\n"
            try:
                log.write((start + text).encode())
                log.flush()
                os.fsync(log.fileno())
            except OSError:
                log.truncate(before)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def _ends_its_line(log: BinaryIO) -> bool:
    """Whether a log that is not empty ends with a line feed."""
    log.seek(-1, os.SEEK_END)
    return log.read(1) == b"\n"


def unwritable(path: Path, error: OSError) -> UnwritableFile:
    """The error for the user when a file could not be written."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # core/files.py wraps the system's error
    if cause.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        shown = path.name if len(path.name) <= 60 else f"{path.name[:57]}…"
        return UnwritableFile(f"to write {shown}", error.strerror or str(error), "Use a shorter and plainer file name.")
    return UnwritableFile(
        f"to write {path.name}",
        error.strerror or str(error),
        f"Free some space or check the rights of {path.parent}. Nothing half-written was left behind.",
    )


def _safe(text: str) -> str:
    """Text that is a file name on every system and leads nowhere else."""
    return re.sub(r'[\\/:*?"<>|%\x00-\x1f]', "_", text).strip(". ") or "_"
