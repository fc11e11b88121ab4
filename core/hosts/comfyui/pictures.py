"""Pictures as ComfyUI's latents and back: video families hold a picture as a video of one frame."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...backbone.contracts import Family
from ...errors import BadInput


def to_host(network: Any, z: Tensor) -> Tensor:
    """Latents [N, C, h, w] as this network takes them: [N, C, 1, h, w] where it knows time."""
    return z.unsqueeze(2) if network.latent_format.latent_dimensions == 3 else z


def to_pictures(z: Tensor) -> Tensor:
    """The inverse of :func:`to_host`."""
    return z[:, :, 0] if z.ndim == 5 else z


def from_host(network: Any, samples: Tensor, family: Family) -> Tensor:
    """A LATENT's samples as samplers give them → [N, C, h, w] in the model's scaled space.

    Raises:
        BadInput: a video, or latents of other channels.
    """
    if samples.ndim == 5 and samples.shape[2] != 1:
        raise BadInput(
            "latents of pictures", f"a video of {samples.shape[2]} latent frames", "Take single frames out of it first."
        )
    picture = to_pictures(samples)
    if picture.ndim != 4 or picture.shape[1] != family.latent_channels:
        raise BadInput(
            f"latents [N, {family.latent_channels}, h, w]", f"shape {list(samples.shape)}", "Use this model's latents."
        )
    return to_pictures(network.process_latent_in(to_host(network, picture)))
