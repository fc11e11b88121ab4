"""Ladders of known damage: one picture, one kind, five severities, the same on every run.

Torch and Pillow only. A severity means about the same visible loss over the kinds: 1 is seen when one looks for it, 5
spoils the picture. Strengths are of the size that public sets of synthetic distortions use (TID2013, KADID-10k).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput

#: Severities of a ladder; 0 is the untouched picture.
SEVERITIES = (1, 2, 3, 4, 5)

_Change = Callable[[Tensor, float, torch.Generator], Tensor]


def distort(image: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """One picture [3, H, W] in [0, 1] → the damaged picture, same shape and range.

    Args:
        image: The picture.
        kind: One of ``KINDS``.
        severity: 0 (untouched) to 5.
        seed: Draws the noise of the kinds that have any; the same seed gives the same picture.

    Raises:
        BadInput: an unknown kind, a severity outside 0 to 5, or no picture.
    """
    if kind not in _LADDERS:
        raise BadInput(f"a kind of damage out of {', '.join(KINDS)}", repr(kind), "Use one of these names.")
    if severity not in (0, *SEVERITIES):
        raise BadInput("a severity from 0 to 5", repr(severity), "0 leaves the picture as it is.")
    if image.ndim != 3 or image.shape[0] != 3:
        raise BadInput("a picture [3, H, W]", f"shape {list(image.shape)}", "Give one RGB picture, channels first.")
    image = image.to(torch.float32)
    if severity == 0:
        return image.clone()
    change, strengths = _LADDERS[kind]
    generator = torch.Generator().manual_seed(seed)
    return change(image, strengths[severity - 1], generator).clamp(0.0, 1.0)


def _blur(image: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    return _separable(image, kernel / kernel.sum())


def _separable(image: Tensor, kernel: Tensor) -> Tensor:
    radius = len(kernel) // 2
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def _motion_blur(image: Tensor, length: float, _: torch.Generator) -> Tensor:
    radius = int(length) // 2
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1)
    for step in range(-2 * radius, 2 * radius + 1):  # a slanted line, drawn at half-pixel steps
        kernel[round(radius + 0.5 * step * 0.5), round(radius + 0.5 * step)] += 1.0
    padded = F.pad(image[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def _noise(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return image + sigma * torch.randn(image.shape, generator=generator)


def _impulse(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(image.shape[1:], generator=generator)
    salted = torch.where(draw < share / 2, torch.zeros_like(image), image)
    return torch.where(draw > 1 - share / 2, torch.ones_like(image), salted)


def _jpeg(image: Tensor, quality: float, _: torch.Generator) -> Tensor:
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    buffer.seek(0)
    with Image.open(buffer) as picture:
        return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 255.0


def _downscale(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    height, width = image.shape[1:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    less = F.interpolate(image[None], size=small, mode="bilinear", antialias=True)
    return F.interpolate(less, size=(height, width), mode="bicubic")[0]


def _pixelate(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    height, width = image.shape[1:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    return F.interpolate(F.interpolate(image[None], size=small, mode="area"), size=(height, width), mode="nearest")[0]


def _contrast(image: Tensor, share: float, _: torch.Generator) -> Tensor:
    mean = image.mean()
    return mean + share * (image - mean)


def _darken(image: Tensor, gamma: float, _: torch.Generator) -> Tensor:
    return image.clamp(0, 1) ** gamma


def _overexpose(image: Tensor, gain: float, _: torch.Generator) -> Tensor:
    return image * gain


def _quantise(image: Tensor, levels: float, _: torch.Generator) -> Tensor:
    return (image.clamp(0, 1) * (levels - 1)).round() / (levels - 1)


_LADDERS: dict[str, tuple[_Change, tuple[float, float, float, float, float]]] = {
    "gaussian_blur": (_blur, (0.8, 1.5, 2.5, 4.0, 6.0)),
    "motion_blur": (_motion_blur, (5, 9, 15, 23, 33)),
    "white_noise": (_noise, (0.03, 0.06, 0.11, 0.18, 0.28)),
    "impulse_noise": (_impulse, (0.005, 0.015, 0.04, 0.09, 0.18)),
    "jpeg": (_jpeg, (45, 25, 14, 8, 4)),
    "downscale": (_downscale, (1.7, 2.5, 4.0, 6.0, 9.0)),
    "pixelate": (_pixelate, (2, 3, 4, 6, 9)),
    "contrast": (_contrast, (0.75, 0.55, 0.38, 0.24, 0.13)),
    "darken": (_darken, (1.5, 2.2, 3.2, 4.5, 6.5)),
    "overexpose": (_overexpose, (1.3, 1.7, 2.2, 3.0, 4.2)),
    "quantise": (_quantise, (16, 9, 6, 4, 3)),
}

KINDS: tuple[str, ...] = tuple(_LADDERS)
