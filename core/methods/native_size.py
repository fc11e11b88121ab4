"""The image-size policy of scorers on the diffusion model: every image at the area that the model was trained at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Family

#: Longest to shortest side beyond which a resized image would be a few latent cells high.
LONGEST_ASPECT = 16.0


def native_policy(family: Family, side: int | None = None) -> str:
    """The policy in words, for specs and cards; ``side`` as in :func:`native_shape`."""
    side, step = side or family.native_size, family.size_step
    return (
        f"the whole image resized (bicubic, antialiased) to the area of {side}×{side} px, aspect kept up to rounding "
        f"each side to {step} px; resizing hides what only native pixels show"
    )


def native_shape(height: int, width: int, family: Family, side: int | None = None) -> tuple[int, int]:
    """Height and width in pixels that an image of this size is scored at.

    Args:
        height: Of the image.
        width: Of the image.
        family: Whose native size and stride count.
        side: Root of the area to score at, in pixels; the family's native size when left out.

    Raises:
        BadInput: the image is longer than 16:1.
    """
    if max(height, width) > LONGEST_ASPECT * min(height, width):
        raise BadInput(
            f"an image of at most {LONGEST_ASPECT:g}:1", f"{width}×{height} pixels", "Crop it before scoring."
        )
    scale = (side or family.native_size) / (height * width) ** 0.5
    step = family.size_step
    return max(step, round(height * scale / step) * step), max(step, round(width * scale / step) * step)


def to_native(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """An image [3, H, W] → [3, *shape] in [0, 1]."""
    if tuple(image.shape[1:]) == shape:
        return image.clamp(0.0, 1.0)
    return F.interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0].clamp(0.0, 1.0)
