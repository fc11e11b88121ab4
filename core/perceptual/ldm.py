"""psi of the diffusion model itself: what its denoiser sees in a latent at a low noise level. The paper's best.

A latent gets the same little noise each time, and the denoiser reads it up to the last tap that is asked for. It works
on latents, since the model does: the decoder, and an encoder behind it, are left out. Cost per guided level: one
denoiser forward cut at its last tap, and a backward through it, whose time and memory are several times those of the
forward. psi of the judge costs a small CNN instead, and the VAE's decoder, there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput
from ..taps.recorder import Recorder
from ..taps.reducers import full
from .maps import check_latents, unit, unit_distance

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..backbone.contracts import Backbone, Conditioning, Tap
    from .contract import Space

#: t of the noise that a latent gets before it is read.
TIMESTEP = 20


class LdmPsi:
    """psi of the loaded model; a :class:`~.contract.Psi`.

    Args:
        backbone: The model; its weights stay as they are.
        conditioning: One row, such as that of the empty prompt.
        taps: Feature taps to read, by name; the last one of each scale coarser than the latent when left out.
        timestep: The noise level.
        seed: Of the noise.

    Raises:
        BadInput: unknown taps, or more conditions than one.
    """

    name = "ldm"
    space: Space = "latent"
    through_denoiser = True
    networks: tuple[nn.Module, ...] = ()

    def __init__(
        self,
        backbone: Backbone,
        conditioning: Conditioning,
        *,
        taps: Sequence[str] | None = None,
        timestep: int = TIMESTEP,
        seed: int = 0,
    ) -> None:
        if len(conditioning.tokens) != 1:
            raise BadInput("one condition", str(len(conditioning.tokens)), "Embed one prompt, such as the empty one.")
        self._backbone, self._conditioning, self._seed = backbone, conditioning, seed
        self.taps = _taps(backbone.family.taps, taps)
        self._sigma = sigma_of_timestep(timestep, backbone.family.prediction)
        names = ",".join(tap.name for tap in self.taps)
        model = f"{backbone.fingerprint.to_text()} {dict(backbone.identity)}"
        self.identity = f"ldm {model} {conditioning.prompts} taps {names} t {timestep} seed {seed}"

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Latents [N, C, h, w] → for each tap a map of unit vectors.

        Raises:
            BadInput: no latents of this model, or a tap that did not fire.
        """
        check_latents(x, 1, self._backbone.family.latent_channels)
        noise = self._backbone.noise(x.shape[1:], self._seed).to(x)
        clean = (1.0 - self._sigma) * x if self._backbone.family.prediction == "flow" else x
        sigma = torch.full((len(x),), self._sigma, dtype=x.dtype, device=x.device)
        recorder = Recorder.of(self.taps, full)
        rows = self._conditioning.rows([0] * len(x))
        self._backbone.features(clean + self._sigma * noise, sigma, rows, recorder)
        silent = recorder.silent()
        if silent:
            raise BadInput(
                "a denoiser whose blocks all run",
                f"silent taps {', '.join(silent)}",
                "Take the model before nodes that cache steps or compile it.",
            )
        return tuple(unit(torch.stack([record.value for record in recorder.rows(tap.name)])) for tap in self.taps)

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """Mean squared distance of unit vectors, [N]."""
        return unit_distance(a, b, weight)


def _taps(known: Sequence[Tap], names: Sequence[str] | None) -> tuple[Tap, ...]:
    features = [tap for tap in known if tap.kind == "feature"]
    if names is None:
        last = {tap.stride: tap for tap in features}
        coarse = [tap for stride, tap in last.items() if stride > 1]
        return tuple(tap for tap in features if tap in (coarse or last.values()))
    found = tuple(tap for tap in features if tap.name in names)
    if not found or len(found) < len(set(names)):
        raise BadInput(
            f"feature taps of this model ({', '.join(tap.name for tap in features)})",
            ", ".join(names) or "none",
            "Leave taps out for one per scale.",
        )
    return found
