"""Restorations kept on disk: the same picture, restorer and settings are not restored twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import BadInput, UnwritableFile
from ..files import sweep, whole_file
from .contract import Restored, Restorer, Watch

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)
#: To be raised whenever the same settings come to give other pictures.
_VERSION = 1
_KEY = "latent_critic_restored"
#: A folder over its limit is emptied down to this share of it, the longest unused first.
_LEFT = 0.8


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept restoration: three pictures uint8 [3, 3, H, W], and their noise levels."""

    pixels: Tensor
    noise_levels: tuple[float, float, float]


class RestorationCache:
    """One file per picture, whole or absent, under a folder per restorer; bounded in bytes.

    The key of a picture is the hash of its pixels, that of the folder is of the restorer's identity. A damaged file
    counts as absent. Several processes may share it.

    Args:
        root: Folder of all restorers' restorations.
        limit: Bytes under ``root`` at most; at least one restoration is kept whatever its size.

    Raises:
        BadInput: a limit that is not positive.
    """

    def __init__(self, root: str | Path, limit: int = 2_000_000_000) -> None:
        if limit <= 0:
            raise BadInput("a limit above 0 bytes", str(limit), "The default is 2 GB.")
        self._root, self._limit = Path(root), limit
        self._held: int | None = None

    def path(self, image: Tensor, identity: Mapping[str, str]) -> Path:
        """Where the restoration of a picture [3, H, W] lies."""
        told = json.dumps({**identity, "cache": str(_VERSION)}, sort_keys=True)
        pixels = image.detach().float().contiguous().cpu().numpy()
        found = hashlib.sha256(repr(pixels.shape).encode())
        found.update(pixels.tobytes())
        name = found.hexdigest()[:32]
        folder = self._root / hashlib.sha256(told.encode()).hexdigest()[:24]
        return folder / name[:2] / f"{name}.safetensors"

    def read(self, path: Path) -> Entry | None:
        """What lies there, or ``None``; it counts as used now."""
        try:
            with safe_open(path, framework="pt") as handle:
                levels = json.loads((handle.metadata() or {})[_KEY])
                pixels = handle.get_tensor("pixels")
            low, middle, high = levels
            with suppress(OSError):  # a folder that may only be read serves as well
                path.touch()
            return Entry(pixels, (low, middle, high))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            _log.warning("%s cannot be read and is restored again: %s", path, error)
            return None

    def write(self, path: Path, entry: Entry) -> None:
        """Keep a restoration, and drop the longest unused ones beyond the limit.

        Raises:
            UnwritableFile: the disk is full, or the folder takes no files.
        """
        if self._held is None:
            for folder in self._root.glob("*/*"):
                sweep(folder)
            self._held = sum(size for _, size, _ in self._files())
        with whole_file(path) as temporary:
            told = json.dumps(entry.noise_levels)
            save_file({"pixels": entry.pixels.contiguous()}, temporary, metadata={_KEY: told})
        self._held += path.stat().st_size
        if self._held > self._limit:
            self._held = self._drop(path)

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last use, size, path) of every restoration."""
        found = []
        for path in self._root.glob("*/*/[!.]*.safetensors"):  # what is being written begins with a dot
            with suppress(FileNotFoundError):  # another process may drop it
                told = path.stat()
                found.append((told.st_mtime, told.st_size, path))
        return found

    def _drop(self, newest: Path) -> int:
        """Delete the longest unused files; returns the bytes that are left."""
        files = sorted(self._files())
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held <= _LEFT * self._limit:
                break
            if path != newest:
                with suppress(PermissionError):  # in use by another process, on Windows: it goes another time
                    path.unlink(missing_ok=True)
                    held -= size
        return held


class CachedRestorer:
    """A restorer that looks into a cache first; itself a :class:`~.contract.Restorer`.

    Restorations are rounded to 8 bits, kept or not, so that the cache changes no value.

    Args:
        restorer: Who restores what is not there.
        cache: Where they are kept, ``None`` for nowhere. Nothing is either, where the restorer says that part of what
            decides a restoration cannot be read (``opaque`` in its identity).
        needed: Whether a cache that cannot be written stops the work; otherwise it goes on without.
    """

    def __init__(self, restorer: Restorer, cache: RestorationCache | None, *, needed: bool = True) -> None:
        self._restorer, self._cache, self._needed = restorer, cache, needed
        self._writes = True

    @property
    def name(self) -> str:
        """The restorer's own."""
        return self._restorer.name

    @property
    def identity(self) -> Mapping[str, str]:
        """The restorer's own, and the rounding."""
        return {**self._restorer.identity, "bits": "8"}

    def restore(self, images: Tensor, *, watch: Watch | None = None) -> Restored:
        """See :meth:`.contract.Restorer.restore`; a picture that gets a reason is not kept."""
        cache, identity = self._cache, self.identity
        if cache is None or "opaque" in identity or not isinstance(images, torch.Tensor) or images.ndim != 4:
            made = self._restorer.restore(images, watch=watch)
            return replace(made, images=_bytes(made.images).float() / 255.0)
        paths = [cache.path(image, identity) for image in images]
        kept = [_fitting(cache, path, images[place]) for place, path in enumerate(paths)]
        missing = [place for place, entry in enumerate(kept) if entry is None]
        if not missing and len(images):
            return _restored([entry for entry in kept if entry is not None], images)
        made = self._restorer.restore(images[missing], watch=watch)
        pixels = _bytes(made.images)
        rounded = pixels.float() / 255.0
        whole = rounded.new_zeros((len(images), *rounded.shape[1:]))
        reasons: list[str | None] = [None] * len(images)
        calls = [0] * len(images)
        for at, place in enumerate(missing):
            whole[place], reasons[place], calls[place] = rounded[at], made.reasons[at], made.calls[at]
            if made.reasons[at] is None:
                self._write(cache, paths[place], Entry(pixels[at].cpu(), made.noise_levels))
        for place, entry in enumerate(kept):
            if entry is not None:
                whole[place] = entry.pixels.to(whole) / 255.0
        return Restored(whole, made.noise_levels, tuple(calls), tuple(reasons))

    def _write(self, cache: RestorationCache, path: Path, entry: Entry) -> None:
        if not self._writes:
            return
        try:
            cache.write(path, entry)
        except UnwritableFile as error:
            if self._needed:
                raise
            self._writes = False
            _log.warning("Restorations are not kept from here on: %s", error)


def _fitting(cache: RestorationCache, path: Path, image: Tensor) -> Entry | None:
    entry = cache.read(path)
    fits = entry is not None and entry.pixels.shape == (3, *image.shape) and entry.pixels.dtype == torch.uint8
    return entry if fits else None


def _bytes(images: Tensor) -> Tensor:
    return images.mul(255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def _restored(entries: list[Entry], images: Tensor) -> Restored:
    """All of them out of the cache."""
    pixels = torch.stack([entry.pixels for entry in entries]).to(images.device)
    return Restored(pixels.float() / 255.0, entries[0].noise_levels, (0,) * len(entries), (None,) * len(entries))
