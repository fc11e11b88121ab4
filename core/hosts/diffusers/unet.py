"""A pipeline's U-Net as a denoiser: variance-preserving noise converted to sigma, SDXL's size conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...backbone.families import ModelFacts
from .names import ldm_weights, places
from .recording import recording

if TYPE_CHECKING:
    from ...backbone.contracts import Conditioning, Family, Tap
    from ...taps.recorder import Recorder

_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
#: The SDXL refiner's text width; it has SDXL's other marks too.
_REFINER = 1280


class UNetDenoiser:
    """See :class:`.denoiser.Denoiser`."""

    def __init__(self, network: Any, scheduler: Any) -> None:
        self.network = network
        self.places = places(network)
        shares = scheduler.alphas_cumprod.double()
        self._log_sigmas = ((1.0 - shares) / shares).sqrt().log()
        config = self.network.config
        told = str(scheduler.config.prediction_type)
        self.facts = ModelFacts(_config(config), _PREDICTIONS.get(told, told), config.in_channels, config.out_channels)

    @property
    def order(self) -> Sequence[Tap]:
        """Its taps in forward order."""
        return self.places.order

    def weights(self) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
        """Every parameter under LDM's name."""
        return ((name, (weight,)) for name, weight in ldm_weights(self.network))

    def recording(
        self,
        recorder: Recorder | None,
        sigmas: Sequence[float],
        rows: Sequence[int],
        x: Tensor,
        tokens: int,
        *,
        stop: bool,
    ) -> AbstractContextManager[None]:
        """Record one forward."""
        return recording(self.places, recorder, sigmas, rows, stop=stop)

    def estimate(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, family: Family) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → x0, float32."""
        level, dtype = sigma.to(z_t).view(-1, 1, 1, 1), self.network.dtype
        x = z_t / (1.0 + level.square()).sqrt()
        tokens = conditioning.tokens.to(z_t.device, dtype)
        added = self._added(conditioning, z_t, family)
        out = self.network(x.to(dtype), self._timesteps(sigma, z_t.device), tokens, added_cond_kwargs=added).sample
        if family.prediction == "v":
            return z_t / (1.0 + level.square()) - out.float() * level / (1.0 + level.square()).sqrt()
        return z_t - level * out.float()

    def _timesteps(self, sigma: Tensor, device: torch.device) -> Tensor:
        """The schedule's nearest timestep in log sigma, as ComfyUI takes it."""
        apart = (sigma.detach().double().cpu().log()[:, None] - self._log_sigmas).abs()
        return apart.argmin(1).to(device)

    def _added(self, conditioning: Conditioning, z_t: Tensor, family: Family) -> dict[str, Tensor] | None:
        """SDXL: pooled text and six numbers: sizes as ComfyUI gives them by default."""
        if conditioning.pooled is None:
            return None
        height, width = (side * family.latent_stride for side in z_t.shape[2:])
        numbers = torch.tensor([height, width, 0, 0, height, width], device=z_t.device, dtype=self.network.dtype)
        pooled = conditioning.pooled.to(z_t.device, self.network.dtype)
        return {"text_embeds": pooled, "time_ids": numbers.repeat(len(z_t), 1)}


def _config(config: Any) -> str:
    """Which model it is, in ComfyUI's words: SDXL is told sizes, SD 2.x projects linearly before its transformers."""
    if config.in_channels == 8:
        return "CriticLDM"
    if config.addition_embed_type == "text_time":
        return "SDXLRefiner" if config.cross_attention_dim == _REFINER else "SDXL"
    if config.addition_embed_type is not None or config.class_embed_type is not None:
        return f"a U-Net with {config.addition_embed_type or config.class_embed_type} conditions"
    return "SD20" if config.use_linear_projection else "SD15"
