"""Restoration with the loaded model: its latent is noised a little and denoised, with the picture as measurement.

The plug-in form beside the published pixel-space restorer (DiffV2IQA, Wang et al., 2024, arXiv 2402.14401): no second
diffusion model in memory. The steps are those of perceptual manifold guidance (Saini, Liao, Ye, Bovik, 2025, arXiv
2506.00327; ``core/guidance``). How strongly the picture is held to, and how much noise is laid on it, are open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional as F

from ..backbone.schedule import sigma_of_timestep
from ..errors import BadInput
from ..guidance.options import GuidanceOptions
from ..guidance.path import guided_path
from ..memory import in_chunks
from .contract import Restored, Watch
from .door import checked, kept_rows

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Prediction
    from ..perceptual.contract import Psi

_VERSION = 1
#: Pictures that walk together; memory may make it fewer.
_ROWS = 8


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """Settings of a restoration.

    Attributes:
        timesteps: DDPM timesteps of the noise levels, falling; two of them are kept.
        kept: Timesteps of d1 and d2, out of ``timesteps``: about the published noise of .20 and .35.
        measurement: Strength with which the clean estimate is pulled back to the picture; 0 lets the model go.
        perceptual: The same for psi's features.
        where: Whether the picture is held to in ``pixels``, through the decoder, or in the ``latent``, without it.
        prompt: What the model is told.
        seed: Of the noise.
    """

    timesteps: tuple[int, ...] = (160, 112, 75, 41, 15, 1)
    kept: tuple[int, int] = (41, 112)
    measurement: float = 0.03
    perceptual: float = 0.0
    where: Literal["pixels", "latent"] = "latent"
    prompt: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.kept
        if low >= high or low not in self.timesteps or high not in self.timesteps:
            expected = "two timesteps to keep, rising, out of those of the path"
            raise BadInput(expected, f"{self.kept} of {self.timesteps}", "The default is 41 and 112.")
        self.guidance()

    def guidance(self) -> GuidanceOptions:
        """The path's settings."""
        return GuidanceOptions(
            self.timesteps, self.measurement, self.perceptual, measurement=self.where, seed=self.seed, most_rows=_ROWS
        )


class SharedRestorer:
    """A :class:`~.contract.Restorer` of the loaded model.

    Args:
        backbone: The loaded model, with VAE and text encoder.
        options: Settings.
        psi: Needed where ``options.perceptual`` is above 0.

    Raises:
        BadInput: a perceptual strength without a psi.
    """

    name = "shared"

    def __init__(self, backbone: Backbone, options: SharedOptions | None = None, psi: Psi | None = None) -> None:
        self.options = options if options is not None else SharedOptions()
        if self.options.perceptual > 0 and psi is None:
            raise BadInput("a psi for the perceptual term", "none", "Give one, or set perceptual to 0.")
        self._backbone, self._psi = backbone, psi if self.options.perceptual > 0 else None

    @property
    def identity(self) -> Mapping[str, str]:
        """The model, how it is set up, and the settings."""
        return {
            **self._backbone.identity,
            "restorer": f"{self.name} {_VERSION}",
            "weights": self._backbone.fingerprint.to_text(),
            "settings": json.dumps(asdict(self.options), sort_keys=True),
            "psi": "" if self._psi is None else self._psi.identity,
        }

    def restore(self, images: Tensor, *, watch: Watch | None = None) -> Restored:
        """See :meth:`.contract.Restorer.restore`; sides are filled up to what the model can take, and cut again."""
        step = self._backbone.family.size_step
        pictures, reasons = checked(images)
        height, width = pictures.shape[-2:]
        padded = F.pad(pictures, (0, -width % step, 0, -height % step), mode="replicate")
        with torch.no_grad():
            found = self._restored(padded, reasons, watch)[..., :height, :width]
        levels = [noise_of(timestep) for timestep in (self.options.timesteps[-1], *self.options.kept)]
        images = kept_rows(found, pictures, reasons)
        calls = (len(self.options.timesteps),) * len(images)
        return Restored(images, (levels[0], levels[1], levels[2]), calls, tuple(reasons))

    def _restored(self, pictures: Tensor, reasons: list[str | None], watch: Watch | None) -> Tensor:
        """[N, 3, 3, H, W]; rows that the path gave up get their reason."""
        count = len(pictures)
        found = pictures.new_zeros((count, 3, *pictures.shape[1:]))

        def work(first: int, last: int) -> None:
            part = self._walked(pictures[first:last], reasons, first, _part_of(watch, first, last, count))
            found[first:last] = part.to(found)

        in_chunks(count, _ROWS, work)
        return found

    def _walked(self, pictures: Tensor, reasons: list[str | None], first: int, watch: Watch | None) -> Tensor:
        """One chunk: encode, walk, decode the end and the two kept states."""
        backbone, options = self._backbone, self.options
        latents = backbone.encode(pictures)
        conditioning = backbone.embed([options.prompt]).rows([0] * len(latents))
        target = pictures.to(latents.device)
        path = guided_path(
            backbone, latents, target, options.guidance(), self._psi, conditioning, watch=watch, keep_states=True
        )
        assert path.z is not None
        states = [path.z]
        for timestep in options.kept:
            place = options.timesteps.index(timestep)
            states.append(_picture_state(path.states[place], path.sigmas[place], backbone.family.prediction))
        images = torch.stack([self._decoded(state) for state in states], 1)
        whole = images.flatten(1).isfinite().all(1)
        for row, reason in enumerate(path.reasons):
            broken = None if whole[row] else "the decoded restoration held NaN or infinite values (try a bf16 VAE)"
            reasons[first + row] = reasons[first + row] or reason or broken
        return torch.nan_to_num(images).clamp(0.0, 1.0)

    def _decoded(self, latents: Tensor) -> Tensor:
        size = self._backbone.rows_that_fit(latents.shape[1:], decoder=True)
        parts, _ = in_chunks(len(latents), size, lambda first, last: self._backbone.decode(latents[first:last]).float())
        return torch.cat(parts)


def _part_of(watch: Watch | None, first: int, last: int, count: int) -> Watch | None:
    """A watch of rows ``first`` to ``last`` - 1 → one of all ``count`` rows."""
    if watch is None:
        return None
    return lambda done, total: watch(first * total + (last - first) * done, count * total)


def noise_of(timestep: int) -> float:
    """sqrt(1 - alpha_bar) of a DDPM timestep; a flow model's level of equal signal-to-noise ratio has the same."""
    sigma = sigma_of_timestep(timestep)
    return sigma / (1.0 + sigma**2) ** 0.5


def _picture_state(z_t: Tensor, sigma: float, prediction: Prediction) -> Tensor:
    """The state as a variance-preserving model holds it: sqrt(alpha_bar) z + sqrt(1 - alpha_bar) eps.

    As much noise as the level says, in a latent of ordinary size, so that a decoder can show it.
    """
    if prediction == "flow":
        return z_t / ((1.0 - sigma) ** 2 + sigma**2) ** 0.5
    return z_t / (1.0 + sigma**2) ** 0.5
