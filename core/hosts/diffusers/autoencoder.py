"""A pipeline's VAE: pixels to latents in the model's own scaled space and back, in as many rows as fit, or in tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbone.contracts import Family
from ...backbone.eager import original, uncompiled
from ...errors import BadInput, MismatchedBackbone
from ...memory import in_chunks, is_out_of_memory
from .memory import give_back, rows_that_fit, vae_row_bytes

logger = logging.getLogger(__name__)

#: Latent pixels that Flux.2's packs into one, along each side.
_PACKED = 2


class PipelineVAE:
    """A VAE of pictures (``scaling_factor``, ``shift_factor``), or of videos (``latents_mean`` …) for single frames.

    Flux.2's packs 2 × 2 latent pixels into channels and normalises each by a running mean and variance.

    Args:
        vae: Of diffusers.
        family: The denoiser's.
        most_rows: Rows in one call at most.

    Raises:
        MismatchedBackbone: it makes other latents.
    """

    def __init__(self, vae: Any, family: Family, most_rows: int) -> None:
        self._vae, self._family, self._most = original(vae), family, most_rows
        config = self._vae.config
        self._video = hasattr(config, "z_dim")
        self._norm = getattr(self._vae, "bn", None)
        self._channels = config.z_dim if self._video else config.latent_channels
        made = self._channels * (1 if self._norm is None else _PACKED**2)
        if made != family.latent_channels:
            raise MismatchedBackbone(
                f"a VAE with {family.latent_channels} latent channels for {family.name}",
                f"one with {made}",
                "Load the VAE of this pipeline's model.",
            )

    def rows_that_fit(self, latent_shape: Any, device: torch.device, *, backward: bool = False) -> int:
        """How many rows of [C, h, w] one decoder forward may hold."""
        stride = self._family.latent_stride
        row = vae_row_bytes(self._vae, latent_shape, stride, self._vae.dtype, backward=backward)
        return rows_that_fit(device, row, self._most)

    def encode(
        self, pixels: Tensor, value_range: tuple[float, float], sample: int | None, device: torch.device
    ) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents; sides are cropped at the centre to multiples of the stride."""
        low, high = value_range
        stride = self._family.latent_stride
        height, width = (side // stride * stride for side in pixels.shape[2:])
        if min(height, width) < stride:
            raise BadInput(f"pixels of at least {stride} a side", f"{list(pixels.shape)}", "Leave tiny images out.")
        top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
        scaled = low + (high - low) * pixels[:, :, top : top + height, left : left + width]

        def encoded(first: int, last: int) -> Tensor:
            part = scaled[first:last].to(device, self._vae.dtype)
            found = self._vae.encode(part.unsqueeze(2) if self._video else part)
            raw = found.latents if hasattr(found, "latents") else found.latent_dist.parameters
            return raw.squeeze(2) if self._video else raw

        raw = torch.cat(self._in_rows(encoded, len(pixels), (height // stride, width // stride), device))
        if raw.shape[1] == 2 * self._channels:
            raw = _drawn(raw, sample)
        raw = raw if self._norm is None else F.pixel_unshuffle(raw, _PACKED)
        shift, scale = self._shift_and_scale(raw)
        return ((raw - shift) * scale).float()

    def decode(self, latents: Tensor, device: torch.device, *, differentiable: bool) -> Tensor:
        """Latents → pixels [N, 3, H, W] in [0, 1]; not clamped when differentiable."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()), uncompiled():
            latents = latents.to(device)
            shift, scale = self._shift_and_scale(latents)
            raw = (latents / scale + shift).to(self._vae.dtype)
            raw = raw if self._norm is None else F.pixel_shuffle(raw, _PACKED)
            if torch.is_grad_enabled():
                return self._pixels(raw)

            def decoded(first: int, last: int) -> Tensor:
                return self._pixels(raw[first:last])

            pixels = torch.cat(self._in_rows(decoded, len(raw), latents.shape[-2:], device))
        return pixels if differentiable else pixels.clamp(0.0, 1.0)

    def _pixels(self, raw: Tensor) -> Tensor:
        found = self._vae.decode(raw.unsqueeze(2)).sample.squeeze(2) if self._video else self._vae.decode(raw).sample
        return (found.float() + 1.0) / 2.0

    def _shift_and_scale(self, like: Tensor) -> tuple[Any, Any]:
        """What is taken from raw latents, and by what they are multiplied then; by channel for a video's."""
        config = self._vae.config
        if self._norm is not None:
            spread = (self._norm.running_var.to(like) + config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
            return self._norm.running_mean.to(like).view(1, -1, 1, 1), 1.0 / spread
        if not self._video:
            return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
        mean, spread = (
            torch.tensor(values).to(like).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        return mean, 1.0 / spread

    def _in_rows(self, work: Callable[[int, int], Tensor], count: int, size: Any, device: torch.device) -> list[Tensor]:
        """The work in as many rows as fit; a row that does not is done in tiles, where this VAE can."""

        def one(first: int, last: int) -> Tensor:
            try:
                return work(first, last)
            except (RuntimeError, MemoryError) as error:
                if last - first > 1 or not is_out_of_memory(error) or not hasattr(self._vae, "enable_tiling"):
                    raise
            logger.warning("The VAE ran out of memory on one picture and works in tiles: seams may show.")
            give_back(device)
            with _in_tiles(self._vae):
                return work(first, last)

        fit = self.rows_that_fit((self._family.latent_channels, *size), device)
        with uncompiled():
            return in_chunks(count, fit, one, lambda: give_back(device))[0]


def _drawn(moments: Tensor, sample: int | None) -> Tensor:
    """Mean and log variance, one after the other → the mode, or one draw for the whole batch."""
    mean, spread = moments.chunk(2, dim=1)
    if sample is None:
        return mean
    draw = torch.randn(mean.shape, generator=torch.Generator().manual_seed(sample), dtype=mean.dtype)
    return mean + torch.exp(0.5 * spread.clamp(-30.0, 20.0)) * draw.to(mean.device)


@contextmanager
def _in_tiles(vae: Any) -> Iterator[None]:
    before = vae.use_tiling
    vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_tiling = before
