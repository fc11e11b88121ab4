"""Ladders, family c: damage done in latent space, through a real autoencoder.

Level 0 is one round trip through the autoencoder: what the trip alone costs is no damage of the kind. ``round_trips``
begins at the picture as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .ladder import Change, LadderKind

#: Latents [1, C, h, w], strength, generator → changed latents.
_InLatents = Callable[[Tensor, float, torch.Generator], Tensor]


class Autoencoder(Protocol):
    """What a loaded model (``core/backbone/contracts.py``) offers of an autoencoder."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents [N, C, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → pixels."""
        ...


def fitted(image: Tensor, stride: int) -> Tensor:
    """[3, H, W] mirrored at its right and lower edge up to sides that a stride divides, [1, 3, H', W']."""
    height, width = image.shape[1:]
    return F.pad(image[None], (0, -width % stride, 0, -height % stride), mode="replicate")


def latent_kinds(model: Autoencoder, stride: int) -> tuple[LadderKind, ...]:
    """The family, bound to an autoencoder whose latents are ``stride`` times smaller than pictures."""

    def through(change: _InLatents) -> Change:
        def changed(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
            height, width = image.shape[1:]
            latents = change(model.encode(fitted(image, stride)), strength, generator)
            return model.decode(latents)[0, :, :height, :width].float().cpu()

        return changed

    def trips(image: Tensor, count: float, _: torch.Generator) -> Tensor:
        height, width = image.shape[1:]
        for _time in range(int(count)):
            image = model.decode(model.encode(fitted(image, stride)))[0, :, :height, :width].float().cpu().clamp(0, 1)
        return image

    def seams(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return _tiles(model, stride, image, strength, generator)

    return (
        *(LadderKind("latent", name, through(change), s, begins=b) for name, change, s, b in _IN_LATENTS),
        LadderKind("latent", "round_trips", trips, (2, 3, 5, 8, 12)),
        LadderKind("latent", "tile_seams", seams, (0.05, 0.1, 0.2, 0.35, 0.6), begins=0.0),
    )


def _spread(latents: Tensor) -> Tensor:
    return latents.std().clamp_min(1e-6)


def _noise(latents: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return latents + strength * _spread(latents) * noise


def _rescaled(latents: Tensor, factor: float, mode: str) -> Tensor:
    if factor == 1.0:
        return latents
    size = latents.shape[-2:]
    small = [max(1, round(side / factor)) for side in size]
    less = F.interpolate(latents, size=small, mode="bilinear", antialias=True)
    return F.interpolate(less, size=size, mode=mode)


def _nearest(latents: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return _rescaled(latents, factor, "nearest")


def _bicubic(latents: Tensor, factor: float, _: torch.Generator) -> Tensor:
    return _rescaled(latents, factor, "bicubic")


def _quantised(latents: Tensor, step: float, _: torch.Generator) -> Tensor:
    return latents if step == 0.0 else (latents / (step * _spread(latents))).round() * step * _spread(latents)


def _clipped(latents: Tensor, most: float, _: torch.Generator) -> Tensor:
    mean = latents.mean(dim=(-2, -1), keepdim=True)
    return mean + (latents - mean).clamp(-most * _spread(latents), most * _spread(latents))


#: Name, what happens to latents, strengths of levels 1 to 5, and of level 0.
_IN_LATENTS: tuple[tuple[str, _InLatents, tuple[float, float, float, float, float], float], ...] = (
    ("latent_noise", _noise, (0.08, 0.15, 0.27, 0.45, 0.75), 0.0),
    ("latent_nearest", _nearest, (1.34, 2.0, 3.0, 4.0, 6.0), 1.0),
    ("latent_bicubic", _bicubic, (1.2, 1.5, 2.0, 3.0, 4.0), 1.0),
    ("latent_quantised", _quantised, (0.3, 0.6, 1.0, 1.5, 2.2), 0.0),
    ("latent_clipped", _clipped, (2.0, 1.4, 1.0, 0.65, 0.35), 1e6),
)


def _tiles(model: Autoencoder, stride: int, image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Four tiles without overlap, each with its own small shift of the latents: what shows is their border."""
    height, width = image.shape[1:]
    whole = fitted(image, 2 * stride)
    rows = []
    for row in whole.chunk(2, dim=2):
        tiles = []
        for tile in row.chunk(2, dim=3):
            latents = model.encode(tile)
            shift = torch.randn((1, latents.shape[1], 1, 1), generator=generator).to(latents)
            tiles.append(model.decode(latents + strength * _spread(latents) * shift))
        rows.append(torch.cat(tiles, dim=3))
    return torch.cat(rows, dim=2)[0, :, :height, :width].float().cpu()
