"""Latents of the pictures trained on, encoded once and kept in memory: an encoder costs as much as several forwards."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..data.distortions import distort
from ..errors import BadInput
from ..images import load_image, reason_unscorable
from ..methods.native_size import to_native

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..methods.genziqa_settings import GenzSettings

_MOST_BYTES = 2**30


class Wanted(NamedTuple):
    """A picture's file, and what is done to it: at its own size damaged, then resized, then mirrored."""

    path: Path
    mirrored: bool = False
    kind: str | None = None
    severity: int = 0

    def load(self) -> Tensor:
        """The picture [3, H, W], damaged; a file's noise is its own, at every severity the same."""
        image = load_image(self.path)
        if self.kind is None or not self.severity:
            return image
        with torch.autocast(image.device.type, enabled=False):  # damage is the same at every precision of the run
            return distort(image, self.kind, self.severity, zlib.crc32(self.path.name.encode()))


class Latents:
    """Pictures as a head of these settings reads them.

    Args:
        backbone: The model that encodes, which users of the latents also read.
        settings: Size and value range.
        most_bytes: Kept at most; what does not fit is encoded again.
    """

    def __init__(self, backbone: AdaptableBackbone, settings: GenzSettings, most_bytes: int = _MOST_BYTES) -> None:
        self.backbone, self._settings, self._room = backbone, settings, most_bytes
        self._kept: dict[Wanted, Tensor] = {}

    def of(self, wanted: Sequence[Wanted]) -> list[Tensor]:
        """Latents [C, h, w] in float32 on the CPU, in order; pictures of one size are encoded together.

        Raises:
            BadInput: a picture that cannot be scored, such as one that is longer than 16:1.
            UnreadableFile: a picture that cannot be read.
        """
        missing = [one for one in dict.fromkeys(wanted) if one not in self._kept]
        new = self._encoded(missing)
        found = [new[one] if one in new else self._kept[one] for one in wanted]
        for one, latent in new.items():
            size = latent.numel() * latent.element_size()
            if size <= self._room:
                self._kept[one] = latent
                self._room -= size
        return found

    def _encoded(self, wanted: Sequence[Wanted]) -> dict[Wanted, Tensor]:
        groups: dict[tuple[int, int], list[tuple[Wanted, Tensor]]] = {}
        for one in wanted:
            image = one.load()
            reason = reason_unscorable(image)
            if reason is not None:
                raise BadInput("pictures that can be scored", f"{one.path}: {reason}", "Leave it out.")
            shape = self._settings.shape(image.shape[1], image.shape[2], self.backbone.family)
            image = to_native(image, shape)
            groups.setdefault(shape, []).append((one, image.flip(-1) if one.mirrored else image))
        found: dict[Wanted, Tensor] = {}
        encode = self._settings.encode(self.backbone)
        for group in groups.values():
            with torch.no_grad():
                latents = encode(torch.stack([image for _, image in group])).float().cpu()
            found.update(zip((one for one, _ in group), latents.unbind(), strict=True))
        return found
