"""Figures of a model in training: reconstruction on held-back pictures, spread of the latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from .autoencoder import decode, encode
from .pictures import Picture, centre_views, random_crops, step_generator


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderTiny, pictures: Sequence[Picture], size: int, chunk: int = 8) -> list[float]:
    """PSNR in dB of each picture's centre view at this side, in fp32."""
    device = next(vae.parameters()).device
    figures: list[float] = []
    for start in range(0, len(pictures), chunk):
        images = centre_views(pictures[start : start + chunk], size).to(device)
        restored = decode(vae, encode(vae, images)).clamp(0, 1)
        error = (restored - images).square().mean(dim=(1, 2, 3))
        figures += (-10 * torch.log10(error)).tolist()
    return figures


@torch.no_grad()
def latent_spread(vae: AutoencoderTiny, pictures: Sequence[Picture], size: int, seed: int, count: int = 64) -> float:
    """Standard deviation of all latent values over random crops."""
    device = next(vae.parameters()).device
    crops = random_crops(pictures, count, size, step_generator(seed, -1)).to(device)
    return float(torch.cat([encode(vae, chunk) for chunk in crops.split(8)]).std())
