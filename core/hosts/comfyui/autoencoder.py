"""Pixels to latents and back through the user's VAE, under ComfyUI's memory management."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from comfy import model_management
from torch import Tensor

from ...backbone.contracts import Family
from ...backbone.eager import original
from ...errors import BadInput, MismatchedBackbone
from .memory import rows_on_a_cpu, times_in_free_memory
from .pictures import to_host, to_pictures

logger = logging.getLogger(__name__)

_REMEDY = "Connect the VAE of the checkpoint that MODEL comes from, or one made for its family."
#: An estimate, not measured on a card: what a decoder forward kept for a backward holds, in units of ComfyUI's plan.
_BACKWARD_FACTOR = 3.0


class Autoencoder:
    """The user's VAE, for one diffusion model.

    The check at the door is one of shapes. A VAE of another family with latents of the same shape (SDXL's on an SD 1.5
    model, say) passes it, and gives scores that mean nothing: nothing in a VAE's weights says whose it is.

    Sizes that are no multiple of the stride are cropped at the centre, as ComfyUI's own VAE Encode does: fewer than
    ``stride`` pixels in all along each side.

    Raises:
        BadInput: no VAE at all.
        MismatchedBackbone: its latents have another shape than the diffusion model's.
    """

    size_policy = "cropped at the centre to multiples of the VAE's stride"

    def __init__(self, vae: Any, network: Any, family: Family) -> None:
        if not callable(getattr(vae, "throw_exception_if_invalid", None)):
            raise BadInput("a VAE", type(vae).__name__, _REMEDY)
        vae.throw_exception_if_invalid()
        got = (vae.latent_channels, vae.latent_dim, vae.spacial_compression_encode())
        wanted = (family.latent_channels, network.latent_format.latent_dimensions, family.latent_stride)
        if got != wanted:
            raise MismatchedBackbone(
                f"a VAE with {wanted[0]} latent channels, {wanted[1]} dimensions and stride {wanted[2]} "
                f"for {family.name}",
                f"one with {got[0]} channels, {got[1]} dimensions and stride {got[2]}",
                _REMEDY,
            )
        self._vae, self._network, self._stride = vae, network, family.latent_stride
        self._video = network.latent_format.latent_dimensions == 3

    @property
    def patcher(self) -> Any:
        """The VAE's own ModelPatcher."""
        return self._vae.patcher

    def rows_that_fit(self, latent_shape: Sequence[int], *, backward: bool = False) -> int:
        """How many rows of [C, h, w] one decoder forward may hold beside the weights, and gains from; at least 1."""
        vae, (channels, *sides) = self._vae, latent_shape
        shape = [1, channels, *([1] if self._video else []), *sides]
        one = vae.memory_used_decode(shape, vae.vae_dtype) * (_BACKWARD_FACTOR if backward else 1.0)
        fit = times_in_free_memory(vae.patcher, one)
        return min(fit, rows_on_a_cpu(latent_shape)) if torch.device(vae.device).type == "cpu" else fit

    def encode(self, pixels: Tensor, value_range: tuple[float, float], sample: int | None) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → latents [N, C, H // stride, W // stride] in the model's scaled space.

        ComfyUI splits the batch to fit, and falls back to tiles when memory runs out, with a line in its log.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < self._stride:
            raise BadInput(
                f"pixels [N, 3, H, W] of at least {self._stride} a side",
                f"shape {list(pixels.shape)}",
                "Turn the images to channels first, or leave out the tiny ones.",
            )
        low, high = value_range
        # process_input maps [0, 1] to [-1, 1]; another range is reached by feeding it other numbers.
        scaled = pixels if value_range == (-1.0, 1.0) else (low + (high - low) * pixels + 1.0) / 2.0
        model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode():  # the mode that ComfyUI's tiled fallback is written for
            raw = self._posterior(scaled.movedim(1, -1), sample).float()
            latents = to_pictures(self._network.process_latent_in(raw))
        return latents.clone()

    def _encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, H, W, 3] → raw latents. A video VAE takes a batch for the frames of one video: one by one then."""
        if not self._video:
            return self._vae.encode(pixels)
        return torch.cat([self._vae.encode(picture[None]) for picture in pixels])

    def _posterior(self, pixels: Tensor, sample: int | None) -> Tensor:
        if sample is None:
            return self._encode(pixels)
        regulariser = getattr(self._vae.first_stage_model, "regularization", None)
        if regulariser is None:
            logger.warning("This VAE has no posterior to sample from; its only latent is used.")
            return self._encode(pixels)
        moments: list[Tensor] = []
        hook = regulariser.register_forward_pre_hook(lambda module, args: moments.append(args[0].float().cpu()))
        try:
            mode = self._encode(pixels)
        finally:
            hook.remove()
        if sum(map(len, moments)) != len(mode) or any(part.shape[2:] != mode.shape[2:] for part in moments):
            logger.warning("Encoded in tiles, or repacked: no posterior of the whole; its mode is used, not a sample.")
            return mode
        mean, log_variance = torch.cat(moments).chunk(2, dim=1)
        draw = torch.randn(mean.shape, generator=torch.Generator().manual_seed(sample))
        return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * draw

    def decode(self, latents: Tensor) -> Tensor:
        """Latents in the model's space → pixels [N, 3, H, W] in [0, 1]."""
        model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode():
            images = self._vae.decode(self._raw(latents.float())).movedim(-1, 1)
        return to_pictures(images).clone()

    def _raw(self, latents: Tensor) -> Tensor:
        """Latents in the model's space → as the VAE takes them."""
        return self._network.process_latent_out(to_host(self._network, latents))

    def decode_for_gradient(self, latents: Tensor) -> Tensor:
        """As :meth:`decode`, not clamped, and part of the caller's graph. Only inside a gradient context."""
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            raise BadInput(
                "a gradient context around a differentiable decode",
                "inference mode" if torch.is_inference_mode_enabled() else "gradients switched off",
                "Wrap decode and backward in `with backbone.gradients():`.",
            )
        model_management.throw_exception_if_processing_interrupted()
        vae = self._vae
        raw = self._raw(latents)
        needed = vae.memory_used_decode(raw.shape, vae.vae_dtype) * _BACKWARD_FACTOR
        model_management.load_models_gpu([vae.patcher], memory_required=needed)
        out = original(vae.first_stage_model).decode(raw.to(vae.device, vae.vae_dtype))
        return (to_pictures(out).float() + 1.0) / 2.0
