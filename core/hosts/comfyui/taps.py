"""Which kind of denoiser a network is: its taps, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ...errors import UnsupportedFamily
from .transformer_tapping import TransformerTapping
from .transformer_taps import TransformerTaps, transformer_taps
from .unet_tapping import UNetTapping
from .unet_taps import UNetTaps, unet_taps

if TYPE_CHECKING:
    from torch import nn

    from .tapping import Tapping

Taps: TypeAlias = UNetTaps | TransformerTaps


def taps_of(network: nn.Module) -> Taps:
    """The taps of a network of a known family, in forward order."""
    return transformer_taps(network) or unet_taps(network)


def tapping_of(taps: Taps, latent_channels: int) -> Tapping:
    """What reads them."""
    if isinstance(taps, UNetTaps):
        return UNetTapping(taps, latent_channels)
    return TransformerTapping(taps, latent_channels)


def need_unet(network: nn.Module, family: str, what: str) -> UNetTaps:
    """The taps of a U-Net, for what only a U-Net can do.

    Args:
        network: The denoiser.
        family: Its family's name.
        what: What is wanted of it, after "a U-Net …".

    Raises:
        UnsupportedFamily: the model is a transformer.
    """
    taps = taps_of(network)
    if isinstance(taps, UNetTaps):
        return taps
    raise UnsupportedFamily(
        f"a U-Net (SD 1.x, SD 2.x, SDXL) {what}",
        f"the transformer of {family}",
        "Use the Zero-shot Scorer or the LGDM Scorer with this model.",
    )
