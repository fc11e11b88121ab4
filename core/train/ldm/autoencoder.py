"""First half: pixels to latents of unit spread and back."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional as F

from .perceptual import PerceptualLoss
from .pictures import Picture, random_crops, step_generator
from .settings import Request
from .state import State

#: Noise laid on the latents in training: neighbouring latents must decode to neighbouring pictures.
LATENT_NOISE = 0.05
_MSE_WEIGHT = 5.0
_SPREAD_WEIGHT = 0.01


class AutoencoderTask:
    """L1 and squared error, a pull of each latent channel towards zero mean and unit spread, a perceptual term."""

    def __init__(self, state: State, pictures: Sequence[Picture], request: Request) -> None:
        self.state, self._pictures, self._request = state, pictures, request
        vae = state.trained["vae"]
        assert isinstance(vae, AutoencoderTiny)
        self._vae = vae
        self._perceptual = PerceptualLoss(request.device) if request.perceptual > 0 else None

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """See :class:`.loop.Task`."""
        request = self._request
        generator = step_generator(request.seed, step)
        images = random_crops(self._pictures, request.batch, request.size, generator).to(request.device)
        images = images.to(memory_format=torch.channels_last)
        skipped = skipped_levels(request, step)
        with autocast(request):
            latents = encode(self._vae, images, skipped).float()
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            restored = decode(self._vae, latents + LATENT_NOISE * noise, skipped).float()
        error = F.mse_loss(restored, images)
        spread = spread_penalty(latents)
        loss = F.l1_loss(restored, images) + _MSE_WEIGHT * error + _SPREAD_WEIGHT * spread
        parts = {"psnr": float(-10 * torch.log10(error.detach())), "spread": float(spread.detach())}
        if self._perceptual is not None:
            seen = self._perceptual(restored, images)
            loss, parts["perceptual"] = loss + request.perceptual * seen, float(seen.detach())
        return loss, parts


def spread_penalty(latents: Tensor) -> Tensor:
    """KL of each channel's mean and variance over the batch to those of a standard normal, averaged over channels."""
    variance, mean = torch.var_mean(latents, dim=(0, 2, 3), correction=0)
    return 0.5 * (mean.square() + variance - torch.log(variance + 1e-6) - 1).mean()


def skipped_levels(request: Request, step: int) -> int:
    """How many of the four resolutions, from the finest, run without their residual blocks at this step.

    The blocks begin as identities. Those at full and half size cost four fifths of a step and matter last.
    """
    if step < request.shallow:
        return 4
    return 2 if step < request.coarse else 0


def encode(vae: AutoencoderTiny, images: Tensor, skipped: int = 0) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] → unscaled latents [N, C, H/8, W/8]."""
    return _through(vae.encoder.layers, images, 0, skipped)


def decode(vae: AutoencoderTiny, latents: Tensor, skipped: int = 0) -> Tensor:
    """Unscaled latents → images, not clamped. The soft bound of ±3 is part of the architecture."""
    return _through(vae.decoder.layers, torch.tanh(latents / 3) * 3, 3, skipped)


def _through(layers: nn.Sequential, values: Tensor, level: int, skipped: int) -> Tensor:
    """Run the layers, ``level`` being the halvings of the input; a skipped block leaves its closing ReLU."""
    for layer in layers:
        if isinstance(layer, AutoencoderTinyBlock) and level < skipped:
            values = F.relu(values)
            continue
        values = layer(values)
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            level += 1
        elif isinstance(layer, nn.Upsample):
            level -= 1
    return values


def autocast(request: Request) -> contextlib.AbstractContextManager[object]:
    """bf16 where the request wants it."""
    if not request.autocast:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(request.device).type, dtype=torch.bfloat16)
