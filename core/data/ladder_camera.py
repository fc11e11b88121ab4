"""Ladders, family a: what cameras and codecs do."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .distortions import distort
from .ladder import LadderKind, coded

_LUMA = (0.299, 0.587, 0.114)


def _known(image: Tensor, level: float, generator: torch.Generator, kind: str) -> Tensor:
    """A kind of ``distortions.py``, whose severities are these levels."""
    return distort(image, kind, int(level), int(torch.randint(2**31, (1,), generator=generator)))


def _banding(image: Tensor, levels: float, _: torch.Generator) -> Tensor:
    """Few steps of brightness, colour as it was: skies fall into bands."""
    luma = (image * image.new_tensor(_LUMA).view(3, 1, 1)).sum(dim=0, keepdim=True)
    stepped = (luma * (levels - 1)).round() / (levels - 1)
    return image + (stepped - luma)


def _underexpose(image: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """Too little light, then brightened again: the noise comes along."""
    noise = torch.randn(image.shape, generator=generator) * 0.012
    return ((image * gain + noise).clamp(0, 1) * 255).round() / 255 / gain


def _saturation(image: Tensor, gain: float, _: torch.Generator) -> Tensor:
    grey = (image * image.new_tensor(_LUMA).view(3, 1, 1)).sum(dim=0, keepdim=True)
    return grey + gain * (image - grey)


def _cast(image: Tensor, shift: float, _: torch.Generator) -> Tensor:
    """White balance gone wrong: red up, blue down."""
    return image * image.new_tensor((1 + shift, 1.0, 1 - shift)).view(3, 1, 1)


def _webp(image: Tensor, quality: float, _: torch.Generator) -> Tensor:
    return coded(image, "WEBP", quality=int(quality), method=4)


def _jpeg2000(image: Tensor, ratio: float, _: torch.Generator) -> Tensor:
    return coded(image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


_FROM_DISTORTIONS = (
    "gaussian_blur", "motion_blur", "white_noise", "impulse_noise", "jpeg", "contrast", "darken", "overexpose",
)  # fmt: skip

CAMERA: tuple[LadderKind, ...] = (
    *(LadderKind("camera", kind, partial(_known, kind=kind), (1, 2, 3, 4, 5)) for kind in _FROM_DISTORTIONS),
    LadderKind("camera", "banding", _banding, (24, 14, 9, 6, 4)),
    LadderKind("camera", "underexpose", _underexpose, (0.5, 0.3, 0.18, 0.1, 0.05)),
    LadderKind("camera", "oversaturated", _saturation, (1.6, 2.2, 3.0, 4.2, 6.0)),
    LadderKind("camera", "colour_cast", _cast, (0.1, 0.2, 0.32, 0.46, 0.62)),
    LadderKind("camera", "webp", _webp, (30, 15, 8, 3, 0), reported=True),
    LadderKind("camera", "jpeg2000", _jpeg2000, (30, 60, 120, 240, 480), reported=True),
)
