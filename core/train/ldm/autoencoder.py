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
        with autocast(request):
            latents = encode(self._vae, images, step < request.shallow).float()
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            restored = decode(self._vae, latents + LATENT_NOISE * noise, step < request.shallow).float()
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


def encode(vae: AutoencoderTiny, images: Tensor, shallow: bool = False) -> Tensor:
    """Images [N, 3, H, W] in [0, 1] → unscaled latents [N, C, H/8, W/8]."""
    return _through(vae.encoder.layers, images, shallow)


def decode(vae: AutoencoderTiny, latents: Tensor, shallow: bool = False) -> Tensor:
    """Unscaled latents → images, not clamped. The soft bound of ±3 is part of the architecture."""
    return _through(vae.decoder.layers, torch.tanh(latents / 3) * 3, shallow)


def _through(layers: nn.Sequential, values: Tensor, shallow: bool) -> Tensor:
    for layer in layers:
        # A residual block begins as an identity followed by its ReLU; leaving it out early saves most of the time.
        skipped = shallow and isinstance(layer, AutoencoderTinyBlock)
        values = F.relu(values) if skipped else layer(values)
    return values


def autocast(request: Request) -> contextlib.AbstractContextManager[object]:
    """bf16 where the request wants it."""
    if not request.autocast:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(request.device).type, dtype=torch.bfloat16)
