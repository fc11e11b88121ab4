"""A pipeline's VAE: pixels to latents in the model's own scaled space and back, in as many rows as fit, or in tiles."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
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
        stride = _stride(self._vae) * (1 if self._norm is None else _PACKED)
        if made != family.latent_channels or stride not in (0, family.latent_stride):
            raise MismatchedBackbone(
                f"a VAE with {family.latent_channels} latent channels and stride {family.latent_stride} for "
                f"{family.name}",
                f"one with {made} channels and stride {stride or 'unknown'}",
                "Load the VAE of this pipeline's model.",
            )

    def rows_that_fit(self, latent_shape: Any, device: torch.device, *, backward: bool = False) -> int:
        """How many rows of [C, h, w] one decoder forward may hold."""
        stride = self._family.latent_stride
        row = vae_row_bytes(self._vae, latent_shape, stride, self._dtype, backward=backward)
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
            part = scaled[first:last].to(device, self._dtype)
            found = self._call("encode", part.unsqueeze(2) if self._video else part)
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
            raw = (latents / scale + shift).to(self._dtype)
            raw = raw if self._norm is None else F.pixel_shuffle(raw, _PACKED)
            if torch.is_grad_enabled():
                return self._pixels(raw)

            def decoded(first: int, last: int) -> Tensor:
                return self._pixels(raw[first:last])

            pixels = torch.cat(self._in_rows(decoded, len(raw), latents.shape[-2:], device))
        return pixels if differentiable else pixels.clamp(0.0, 1.0)

    def _pixels(self, raw: Tensor) -> Tensor:
        found = self._call("decode", raw.unsqueeze(2) if self._video else raw).sample
        return ((found.squeeze(2) if self._video else found).float() + 1.0) / 2.0

    @property
    def _dtype(self) -> torch.dtype:
        """That it computes in: fp32 where SDXL's would overflow in fp16, as SDXL's own pipelines have it."""
        narrow = self._vae.dtype == torch.float16 and getattr(self._vae.config, "force_upcast", False)
        return torch.float32 if narrow and self._family.name == "sdxl" else self._vae.dtype

    def _call(self, name: str, x: Tensor) -> Any:
        """The VAE's method; its own weights stay as they are, also for a backward that comes later."""
        if self._dtype == self._vae.dtype:
            return getattr(self._vae, name)(x)
        hook = getattr(self._vae, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self._vae)  # of an offloaded pipeline: its weights are wanted here
        wide = {f"vae.{key}": value.float() for key, value in self._vae.state_dict(keep_vars=True).items()}
        return torch.func.functional_call(_Method(self._vae, name), wide, (x,))

    def _shift_and_scale(self, like: Tensor) -> tuple[Any, Any]:
        """What is taken from raw latents, and by what they are multiplied then; by channel for a video's."""
        config = self._vae.config
        if self._norm is not None:
            spread = (self._norm.running_var.to(like) + config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
            return self._norm.running_mean.to(like).view(1, -1, 1, 1), 1.0 / spread
        if not self._video:
            shift, scale = getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
            mean, spread = (_by_channel(getattr(config, f"latents_{name}", None), like) for name in ("mean", "std"))
            return (shift, scale) if mean is None or spread is None else (mean, scale / spread)
        mean, spread = (
            torch.tensor(one).to(like).view(1, -1, 1, 1) for one in (config.latents_mean, config.latents_std)
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


class _Method(torch.nn.Module):
    """A VAE's method as a forward."""

    def __init__(self, vae: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.vae, self._name = vae, name

    def forward(self, x: Tensor) -> Any:
        """Whatever the method gives."""
        return getattr(self.vae, self._name)(x)


def _by_channel(values: Sequence[float] | None, like: Tensor) -> Tensor | None:
    return None if values is None else torch.tensor(values).to(like).view(1, -1, 1, 1)


def _stride(vae: Any) -> int:
    """Pixels per latent pixel, along each side: by the levels of its encoder; 0 where a VAE does not tell."""
    kinds = ("block_out_channels", "encoder_block_out_channels", "down_block_out_channels")
    levels = next((len(found) for kind in kinds if (found := getattr(vae.config, kind, None))), None)
    return int(getattr(vae, "spatial_compression_ratio", 0)) if levels is None else 2 ** (levels - 1)


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
