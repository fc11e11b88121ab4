"""Up-block features that no training changes, on disk: without adapters a picture's are computed once and for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import sweep, whole_file
from ..images import load_image
from ..methods.native_size import to_native
from .features import content_of

if TYPE_CHECKING:
    from ..methods.dp_iqa_head import DpHead
    from ..methods.dp_iqa_reader import MapReader
    from ..methods.dp_iqa_text import TextSequence

_SHARD = 20


class MapCache:
    """Shards of pictures, each whole or absent; half precision.

    Args:
        folder: Below which the shards lie.
        reader: Without an image adapter.
        head: Whose settings and grid count.
        sequence: The text, not adapted.
    """

    def __init__(self, folder: Path, reader: MapReader, head: DpHead, sequence: TextSequence) -> None:
        self._reader, self._sequence, self._settings = reader, sequence, head.settings
        self._count = len(head.taps)
        tokens = hashlib.sha256(sequence.tokens.contiguous().numpy().tobytes()).hexdigest()
        told = [head.settings.to_dict(), head.nets.shape.decoder.grid, head.taps, head.meta.fingerprint, tokens]
        self._folder = folder / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        self._places: dict[Path, tuple[Path, int]] = {}

    def extract(self, paths: Sequence[Path], watch: Callable[[int, int], None] | None = None) -> None:
        """Write the shards that are missing; stopped at any moment, it goes on at the first missing one.

        Raises:
            UnreadableFile: a picture cannot be read.
        """
        sweep(self._folder)
        for first in range(0, len(paths), _SHARD):
            shard = paths[first : first + _SHARD]
            file = self._file(shard)
            if not file.exists():
                self._write(file, shard)
            self._places |= {path: (file, place) for place, path in enumerate(shard)}
            if watch is not None:
                watch(first + len(shard), len(paths))

    def _write(self, file: Path, shard: Sequence[Path]) -> None:
        rows = [self._maps(path) for path in shard]
        stacked = {f"maps{level}": torch.cat([row[level] for row in rows]).half() for level in range(self._count)}
        with whole_file(file) as temporary:
            save_file(stacked, temporary)

    @torch.no_grad()
    def _maps(self, path: Path) -> tuple[Tensor, ...]:
        image = load_image(path)
        family = self._reader.backbone.family
        pixels = to_native(image, self._settings.shape(image.shape[1], image.shape[2], family))[None]
        maps, _ = self._reader.maps(self._reader.encode(pixels), None, self._sequence.tokens, self._sequence)
        return tuple(values.cpu() for values in maps)

    def _file(self, shard: Sequence[Path]) -> Path:
        key = json.dumps([content_of(path) for path in shard])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"

    def read(self, paths: Sequence[Path], mirrored: Sequence[bool]) -> tuple[Tensor, ...]:
        """Maps [N, C, grid, grid] of every level, fp32; a mirrored picture's are its mirrored maps."""
        rows = [self._one(path) for path in paths]
        return tuple(
            torch.stack([row[level].flip(-1) if m else row[level] for row, m in zip(rows, mirrored, strict=True)])
            for level in range(self._count)
        )

    def _one(self, path: Path) -> tuple[Tensor, ...]:
        file, place = self._places[path]
        with safe_open(file, framework="pt") as handle:
            return tuple(handle.get_slice(f"maps{level}")[place].float() for level in range(self._count))
