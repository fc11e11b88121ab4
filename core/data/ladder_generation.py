"""Ladders, family d: what a diffusion model makes of a picture, SDEdit at growing strength.

After Meng et al. (SDEdit, ICLR 2022, arXiv 2108.01073): noise a picture's latents up to a level, then sample down from
there. The weaker the model, the more a picture's structure melts as the level grows. Level 0 is one round trip through
the autoencoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..guidance.options import GuidanceOptions
from ..guidance.path import guided_path
from .ladder import LadderKind
from .ladder_latent import fitted

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone, Conditioning

#: Timesteps that are taken from the strength's level down.
_STEPS = 8
_LOWEST = 20


def generation_kinds(backbone: Backbone, prompt: str = "") -> tuple[LadderKind, ...]:
    """The family, bound to a loaded model."""
    conditioning = backbone.embed([prompt])

    def edit(image: Tensor, t: float, generator: torch.Generator) -> Tensor:
        return sdedit(backbone, conditioning, image, int(t), int(torch.randint(2**31, (1,), generator=generator)))

    return (LadderKind("generation", "sdedit", edit, (150, 300, 450, 600, 750), begins=0.0),)


@torch.no_grad()
def sdedit(backbone: Backbone, conditioning: Conditioning, image: Tensor, timestep: int, seed: int) -> Tensor:
    """One picture [3, H, W] → the same picture sampled anew from a DDPM timestep; 0 is a round trip.

    Raises:
        BadInput: a timestep outside the schedule.
    """
    height, width = image.shape[1:]
    latents = backbone.encode(fitted(image, backbone.family.size_step))
    if timestep:
        times = torch.linspace(timestep, min(_LOWEST, timestep), _STEPS).round().int().unique().flip(0).tolist()
        options = GuidanceOptions(tuple(times), zeta1=0.0, zeta2=0.0, seed=seed)
        found = guided_path(backbone, latents, None, options, None, conditioning)
        latents = latents if found.z is None else found.z
    return backbone.decode(latents)[0, :, :height, :width].float().cpu()
