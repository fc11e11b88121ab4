"""What the built-in judge looks at: native-scale crops and one global view of each picture.

Size policy (recorded in every score): a side shorter than 256 px is mirrored up to 256, nothing is ever enlarged; up
to nine 256-px crops at native scale on an even grid that covers the picture where nine can; and the whole picture
reduced so that its shorter side has 256 px, its longer side rounded to a multiple of 32 and centre-cropped beyond 512.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 256
MOST_CROPS = 9
_LONGEST = 2 * SIDE
_STEP = 32

SIZE_POLICY = (
    f"up to {MOST_CROPS} native-scale {SIDE}-px crops on an even grid, and the whole picture reduced to {SIDE} px on "
    f"its shorter side (longer side at most {_LONGEST}); sides under {SIDE} px are mirrored, nothing is enlarged"
)


def grid(height: int, width: int, most: int = MOST_CROPS, side: int = SIDE) -> list[tuple[int, int]]:
    """(top, left) of each crop of a picture of at least side×side: the fewest that cover it, thinned to ``most``."""
    rows, columns = -(-height // side), -(-width // side)
    while rows * columns > most:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    return [(top, left) for top in _spread(height, rows, side) for left in _spread(width, columns, side)]


def _spread(size: int, count: int, side: int) -> list[int]:
    if count == 1:
        return [(size - side) // 2]
    return [round(place * (size - side) / (count - 1)) for place in range(count)]


def mirrored(image: Tensor, side: int = SIDE) -> Tensor:
    """[3, H, W] with both sides at least ``side``: short ones are continued by their mirror image."""
    for dim in (1, 2):
        size = image.shape[dim]
        if size < side:
            wave = torch.arange(side, device=image.device) % (2 * size)
            image = image.index_select(dim, torch.minimum(wave, 2 * size - 1 - wave))
    return image


def crops(image: Tensor, most: int = MOST_CROPS, side: int = SIDE) -> Tensor:
    """[3, H, W] → native-scale crops [K, 3, side, side] in [0, 1], ``most`` of them at most."""
    image = mirrored(image, side)
    places = grid(*image.shape[1:], most=most, side=side)
    return torch.stack([image[:, top : top + side, left : left + side] for top, left in places]).clamp(0.0, 1.0)


def global_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of the global view of a picture, before its centre crop to at most 512."""
    height, width = max(height, SIDE), max(width, SIDE)
    scale = SIDE / min(height, width)
    return tuple(max(SIDE, round(side * scale / _STEP) * _STEP) for side in (height, width))  # type: ignore[return-value]


def global_view(image: Tensor) -> Tensor:
    """[3, H, W] → the whole picture [1, 3, h, w], its shorter side 256 px (antialiased bilinear), in [0, 1]."""
    image = mirrored(image)
    height, width = image.shape[1:]
    scale = min(height, width) / SIDE
    # Cut far ends off before resizing: a 16:1 picture would be enlarged memory for nothing.
    keep = round(_LONGEST * scale)
    top, left = max(height - keep, 0) // 2, max(width - keep, 0) // 2
    image = image[:, top : top + keep, left : left + keep]
    size = global_shape(*image.shape[1:])
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0.0, 1.0)
