"""Up-block features that no training changes, on disk: without adapters a picture's are computed once and for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import sweep, whole_file
from ..images import load_image
from ..methods.native_size import to_native
from .features import content_of

if TYPE_CHECKING:
    from ..methods.dp_iqa_head import DpHead
    from ..methods.dp_iqa_reader import MapReader
    from ..methods.dp_iqa_text import TextSequence


class MapCache:
    """One file per picture, known by its bytes, whole or absent; half precision.

    Args:
        folder: Below which the files lie, in one folder for each model, text and way of reading.
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
        self._files: dict[Path, Path] = {}

    def extract(self, paths: Sequence[Path], watch: Callable[[int, int], None] | None = None) -> None:
        """Write the files that are missing; stopped at any moment, it goes on at the first missing one.

        Raises:
            UnreadableFile: a picture cannot be read.
        """
        sweep(self._folder)
        for place, path in enumerate(paths):
            file = self._files[path] = self._folder / f"{content_of(path)[:32]}.safetensors"
            if not file.exists():
                maps = self._maps(path)
                with whole_file(file) as temporary:
                    save_file({f"maps{level}": values.half() for level, values in enumerate(maps)}, temporary)
            if watch is not None:
                watch(place + 1, len(paths))

    @torch.no_grad()
    def _maps(self, path: Path) -> list[Tensor]:
        image = load_image(path)
        family = self._reader.backbone.family
        pixels = to_native(image, self._settings.shape(image.shape[1], image.shape[2], family))[None]
        maps, _ = self._reader.maps(self._reader.encode(pixels), None, self._sequence.tokens, self._sequence)
        return [values[0].cpu() for values in maps]

    def read(self, paths: Sequence[Path], mirrored: Sequence[bool]) -> tuple[Tensor, ...]:
        """Maps [N, C, grid, grid] of every level, fp32; a mirrored picture's are its mirrored maps."""
        rows = [load_file(self._files[path]) for path in paths]
        return tuple(
            torch.stack(
                [row[name].float().flip(-1) if m else row[name].float() for row, m in zip(rows, mirrored, strict=True)]
            )
            for name in (f"maps{level}" for level in range(self._count))
        )
