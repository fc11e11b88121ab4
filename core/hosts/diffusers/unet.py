"""A pipeline's U-Net as a denoiser: variance-preserving noise converted to sigma, SDXL's size conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...backbone.families import ModelFacts
from ...errors import BadInput
from .names import Places, ldm_weights, places
from .recording import recording

if TYPE_CHECKING:
    from ...backbone.contracts import Conditioning, Family, Tap
    from ...taps.recorder import Recorder

_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
#: Schedulers of straight paths between noise and picture; their timestep is 1000 sigma.
_FLOW = "FlowMatch"
#: Blocks whose text cross-attention lies in transformers, and those that have none.
_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UNetMidBlock2DCrossAttn", None}
#: An inpainting network takes a mask and a masked picture too. All is masked here: mid-grey, as SD's VAE encodes it.
_INPAINTING, _GREY = 9, (0.8223, -0.6876, 0.6364, 0.1380)
#: The SDXL refiner's text width; it has SDXL's other marks too.
_REFINER = 1280


class UNetDenoiser:
    """See :class:`.denoiser.Denoiser`.

    Raises:
        BadInput: a pipeline without its scheduler, which tells the noise levels, or under an IP-Adapter.
    """

    def __init__(self, network: Any, scheduler: Any) -> None:
        if scheduler is None:
            raise BadInput("a pipeline with its scheduler", "none", "Load the pipeline with its scheduler.")
        self.network = network
        _without_ip_adapter(network)
        config = self.network.config
        self.facts = ModelFacts(_config(config), _prediction(scheduler), config.in_channels, config.out_channels)
        self.places = places(network) if _known_blocks(config) else Places()
        shares = getattr(scheduler, "alphas_cumprod", None)
        self._log_sigmas = None if shares is None else ((1.0 - shares.double()) / shares.double()).sqrt().log()

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
        _without_ip_adapter(self.network)
        level, dtype = sigma.to(z_t).view(-1, 1, 1, 1), self.network.dtype
        x = z_t if family.prediction == "flow" else z_t / (1.0 + level.square()).sqrt()
        if self.network.config.in_channels == _INPAINTING:
            grey = torch.tensor(_GREY, device=x.device).view(1, -1, 1, 1).expand_as(x)
            x = torch.cat([x, torch.ones_like(x[:, :1]), grey], dim=1)
        tokens = conditioning.tokens.to(z_t.device, dtype)
        added = self._added(conditioning, z_t, family)
        out = self.network(x.to(dtype), self._timesteps(sigma, z_t.device), tokens, added_cond_kwargs=added).sample
        if family.prediction == "v":
            return z_t / (1.0 + level.square()) - out.float() * level / (1.0 + level.square()).sqrt()
        return z_t - level * out.float()

    def _timesteps(self, sigma: Tensor, device: torch.device) -> Tensor:
        """The schedule's nearest timestep in log sigma, as ComfyUI takes it; of a flow, as it is."""
        if self._log_sigmas is None:
            return 1000.0 * sigma.to(device, torch.float32)
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
    if not _known_blocks(config):
        return f"a U-Net of {', '.join(dict.fromkeys((*config.down_block_types, *config.up_block_types)))}"
    if config.in_channels == 8:
        return "CriticLDM"
    if config.addition_embed_type == "text_time":
        return "SDXLRefiner" if config.cross_attention_dim == _REFINER else "SDXL"
    if config.addition_embed_type is not None or config.class_embed_type is not None:
        return f"a U-Net with {config.addition_embed_type or config.class_embed_type} conditions"
    return "SD20" if config.use_linear_projection else "SD15"


def _known_blocks(config: Any) -> bool:
    return {*config.down_block_types, config.mid_block_type, *config.up_block_types} <= _BLOCKS


def _prediction(scheduler: Any) -> str:
    """By what rule the network predicts; the name of a scheduler that tells none of ours."""
    name = type(scheduler).__name__
    if name.startswith(_FLOW):
        return "flow"
    told = str(scheduler.config.get("prediction_type", name))
    return _PREDICTIONS.get(told, told) if hasattr(scheduler, "alphas_cumprod") else name


def _without_ip_adapter(network: Any) -> None:
    if getattr(network.config, "encoder_hid_dim_type", None) == "ip_image_proj":
        remedy = "Take it off for scoring: pipeline.unload_ip_adapter()."
        raise BadInput("a U-Net that is told texts alone", "one under an IP-Adapter", remedy)
