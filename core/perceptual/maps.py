"""What the distances share: checks at the door, unit-length features, and means over places that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def check_pixels(x: Tensor, least: int) -> None:
    """Refuse what is no batch of pictures.

    Raises:
        BadInput: not [N, 3, H, W] of floating-point numbers, or a side under ``least`` pixels.
    """
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point() or min(x.shape[2:]) < least:
        raise BadInput(
            f"floating-point pixels [N, 3, H, W] of at least {least} a side",
            f"{x.dtype} of shape {list(x.shape)}",
            "Give RGB pictures in [0, 1], channels first; enlarge or leave out the tiny ones.",
        )


def check_latents(x: Tensor, least: int, channels: int | None = None) -> None:
    """Refuse what is no batch of latents.

    Raises:
        BadInput: not [N, C, h, w] of floating-point numbers, other channels, or a side under ``least`` cells.
    """
    fits = x.ndim == 4 and x.is_floating_point() and min(x.shape[2:]) >= least
    if not fits or (channels is not None and x.shape[1] != channels):
        raise BadInput(
            f"floating-point latents [N, {channels or 'C'}, h, w] of at least {least} a side",
            f"{x.dtype} of shape {list(x.shape)}",
            "Encode the pictures with the model's own VAE.",
        )


def check_pair(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> None:
    """Refuse features that cannot be compared.

    Raises:
        BadInput: another number of layers, or another shape in one.
    """
    shapes = [[list(values.shape) for values in features] for features in (a, b)]
    if shapes[0] != shapes[1]:
        raise BadInput("features of equal shapes", f"{shapes[0]} and {shapes[1]}", "Compare pictures of one size.")


def unit(values: Tensor, floor: float = 1e-10) -> Tensor:
    """Maps [N, C, h, w] → every place's channel vector brought to length 1; a vector of zeros stays so.

    ``floor`` is added to the length, as LPIPS does. The root's infinite slope at 0 is kept out of the gradient. Half
    precision comes back in single: in fp16 a squared length overflows and the floor is 0.
    """
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    squares = values.square().sum(dim=1, keepdim=True)
    length = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    return values / (torch.where(squares > 0, length, torch.zeros_like(length)) + floor)


def mean_over_places(values: Tensor, weight: Tensor | None) -> Tensor:
    """Values [N, C, h, w] → [N, C], weighted by the area average of ``weight`` [N, 1, H, W]; 0 where that is 0."""
    if weight is None:
        return values.mean(dim=(-2, -1))
    cells = F.adaptive_avg_pool2d(weight.to(values), (values.shape[-2], values.shape[-1]))
    total = cells.sum(dim=(-2, -1))
    safe = torch.where(total > 0, total, torch.ones_like(total))
    return (values * cells).sum(dim=(-2, -1)) / safe


def unit_distance(a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
    """Mean over layers of the mean over places of the squared distance of unit vectors: 0 to 4, [N].

    LPIPS (Zhang et al., 2018) with every channel counting alike; ``a`` and ``b`` hold maps from :func:`unit`.
    """
    check_pair(a, b)
    layers = [mean_over_places((x - y).square().sum(1, keepdim=True), weight) for x, y in zip(a, b, strict=True)]
    return torch.cat(layers, dim=1).mean(dim=1)
