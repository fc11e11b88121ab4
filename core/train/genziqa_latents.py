"""Latents of the pictures trained on, encoded once and kept in memory: an encoder costs as much as several forwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..errors import BadInput
from ..images import load_image, reason_unscorable
from ..methods.native_size import to_native

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..methods.genziqa_settings import GenzSettings

#: A picture's file, and whether it is mirrored.
Wanted: TypeAlias = "tuple[Path, bool]"
_MOST_BYTES = 2**30


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
        for path, mirrored in wanted:
            image = load_image(path)
            reason = reason_unscorable(image)
            if reason is not None:
                raise BadInput("pictures that can be scored", f"{path}: {reason}", "Leave it out.")
            shape = self._settings.shape(image.shape[1], image.shape[2], self.backbone.family)
            image = to_native(image, shape)
            groups.setdefault(shape, []).append(((path, mirrored), image.flip(-1) if mirrored else image))
        found: dict[Wanted, Tensor] = {}
        encode = self._settings.encode(self.backbone)
        for group in groups.values():
            with torch.no_grad():
                latents = encode(torch.stack([image for _, image in group])).float().cpu()
            found.update(zip((one for one, _ in group), latents.unbind(), strict=True))
        return found
