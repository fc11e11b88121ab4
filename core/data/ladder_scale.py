"""Ladders, family b: pictures that were enlarged or sharpened; where there is one, the hidden scale factor is known."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..images import from_picture, to_picture
from .ladder import LadderKind

#: Times that each side was enlarged, of levels 1 to 5.
_FACTORS = (1.25, 1.6, 2.1, 2.9, 4.0)


def _small(image: Tensor, factor: float) -> Tensor:
    size = [max(1, round(side / factor)) for side in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)


def _bicubic(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return F.interpolate(_small(image, factor), size=image.shape[1:], mode="bicubic")[0]


def _lanczos(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    small = to_picture(_small(image, factor)[0].clamp(0, 1))
    return from_picture(small.resize((image.shape[2], image.shape[1]), Image.Resampling.LANCZOS))


def _nearest(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return F.interpolate(_small(image, factor), size=image.shape[1:], mode="nearest")[0]


def _soft(image: Tensor, passes: int) -> Tensor:
    """Binomial smoothing, 3×3, so often."""
    kernel = image.new_tensor([0.25, 0.5, 0.25])
    for _ in range(passes):
        padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")
        image = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 3)), kernel.view(1, 1, 3, 1))[:, 0]
    return image


def _sharpen(image: Tensor, amount: float, _: torch.Generator) -> Tensor:
    return image + amount * (image - _soft(image, 3))


def _super_resolution(image: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """What enlargers by guesswork leave: no fine texture, edges thin, hard and with halos."""
    large = _bicubic(image, factor, generator)
    smooth = _soft(large, round(2 * factor))
    edge = (large - smooth).abs().mean(dim=0, keepdim=True)
    edge = (edge / (edge.mean() + 1e-6)).clamp(0, 2) / 2
    melted = edge * large + (1 - edge) * smooth
    return melted + factor * edge * (melted - _soft(melted, 4))


SCALE: tuple[LadderKind, ...] = (
    LadderKind("scale", "bicubic", _bicubic, _FACTORS, factors=_FACTORS),
    LadderKind("scale", "lanczos", _lanczos, _FACTORS, factors=_FACTORS),
    LadderKind("scale", "nearest", _nearest, _FACTORS, factors=_FACTORS),
    LadderKind("scale", "super_resolution", _super_resolution, _FACTORS, factors=_FACTORS),
    LadderKind("scale", "sharpen", _sharpen, (1.5, 3.0, 5.5, 9.0, 15.0), reported=True),
)


def hidden_factor(kind: str, level: int) -> float | None:
    """How many times a rung of this family was enlarged: 1 at level 0, ``None`` for a kind without a factor."""
    factors = next((one.factors for one in SCALE if one.name == kind), None)
    return None if factors is None else 1.0 if level == 0 else factors[level - 1]
