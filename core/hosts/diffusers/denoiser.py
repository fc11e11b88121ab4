"""What this room asks of a pipeline's network, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ...backbone.eager import original
from ...errors import BadInput
from .transformer import TransformerDenoiser
from .transformer_kinds import NETWORKS
from .unet import UNetDenoiser

if TYPE_CHECKING:
    from torch import Tensor

    from ...backbone.contracts import Conditioning, Family, Tap
    from ...backbone.families import ModelFacts
    from ...taps.recorder import Recorder


class Denoiser(Protocol):
    """A network that can be read and asked."""

    network: Any
    facts: ModelFacts

    @property
    def order(self) -> Sequence[Tap]:
        """Its taps in forward order."""
        ...

    def weights(self) -> Iterable[tuple[str, tuple[Tensor, ...]]]:
        """Every parameter under the name that the fingerprint knows; several are one there, one after the other."""
        ...

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
        """Record one forward of latents ``x`` under so many text tokens; with ``stop`` it ends after the last tap."""
        ...

    def estimate(self, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, family: Family) -> Tensor:
        """Noised latents [N, C, h, w] at sigma [N] → x0, float32."""
        ...


def denoiser_of(pipeline: Any) -> Denoiser:
    """The network of a pipeline.

    Raises:
        BadInput: neither a U-Net nor a transformer of a known kind, or one whose weights are not there.
    """
    unet, transformer = (original(getattr(pipeline, name, None)) for name in ("unet", "transformer"))
    network = unet if unet is not None else transformer
    known = isinstance(unet, UNet2DConditionModel) if unet is not None else type(network).__name__ in NETWORKS
    if not known:
        raise BadInput(
            f"a diffusers pipeline with a U-Net of pictures (UNet2DConditionModel), or one of {', '.join(NETWORKS)}",
            f"{type(pipeline).__name__} with {type(network).__name__ if network is not None else 'neither'}",
            "Load SD 1.x, SD 2.x, SDXL, SD3, Flux.1, Flux.2, Lumina 2, Z-Image, Qwen-Image or Wan 2.1.",
        )
    if unet is None and getattr(pipeline, "transformer_2", None) is not None:
        remedy = "Use a pipeline of one network, such as Wan 2.1."
        raise BadInput("a pipeline of one network", "two, for high and for low noise (Wan 2.2)", remedy)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise BadInput(
            "a pipeline whose weights are in memory",
            "weights that are moved in layer by layer (sequential offload)",
            "Load it without enable_sequential_cpu_offload; enable_model_cpu_offload works.",
        )
    return (
        UNetDenoiser(unet, getattr(pipeline, "scheduler", None))
        if unet is not None
        else TransformerDenoiser(transformer)
    )
