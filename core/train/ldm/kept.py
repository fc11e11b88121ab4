"""Decoded pictures of a folder: some stay in memory, the others are read again whenever they are asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import BadInput
from ...images import load_image

#: Bytes of decoded pixels that are kept unless a run says otherwise: 2,700 pictures of 512×512.
KEPT_BYTES = 2 * 1024**3


class Kept:
    """Pixels by path. The first pictures that are asked for stay, as far as the budget goes.

    Draws are uniform, so that no picture is a better one to keep than another: nothing kept is ever dropped. Pixels are
    the same either way.

    Args:
        most: Pictures are made this small along the shorter side at most.
        budget: Bytes that may stay.

    Raises:
        BadInput: a negative budget.
    """

    def __init__(self, most: int, budget: int = KEPT_BYTES) -> None:
        if budget < 0:
            raise BadInput("a memory of 0 GB or more", f"{budget} bytes", "0 reads every picture again each time.")
        self.most, self.free = most, budget
        self._pixels: dict[Path, Tensor] = {}

    def pixels(self, path: Path) -> Tensor:
        """uint8 [3, H, W].

        Raises:
            UnreadableFile: the file is gone, truncated or no picture.
        """
        found = self._pixels.get(path)
        if found is None:
            found = _shrunk(load_image(path), self.most).mul_(255).round_().to(torch.uint8)
            if found.nbytes <= self.free:
                self._pixels[path] = found
                self.free -= found.nbytes
        return found


def _shrunk(pixels: Tensor, most: int) -> Tensor:
    height, width = pixels.shape[1:]
    factor = most / min(height, width)
    if factor >= 1:
        return pixels
    size = (round(height * factor), round(width * factor))
    return F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
