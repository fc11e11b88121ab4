"""What a user may set on perceptual manifold guidance, checked once. The paper leaves all of it open."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from ..backbone.schedule import STEPS, sigma_of_timestep
from ..errors import BadInput

Placement: TypeAlias = Literal["time", "sigma", "log_sigma"]


def place_levels(count: int, highest: int = 100, lowest: int = 20, placement: Placement = "time") -> tuple[int, ...]:
    """``count`` different timesteps from ``highest`` down to ``lowest``, evenly spaced.

    Args:
        count: How many, at least 1; one level lies at ``highest``.
        highest: The first timestep. Features correlate with quality best in [0, 100].
        lowest: The last timestep.
        placement: Evenly in time, in sigma, or in log sigma (as many per halving of the noise).

    Raises:
        BadInput: so many levels do not fit, or a timestep lies outside the schedule.
    """
    if not 0 <= lowest <= highest < STEPS or not 1 <= count <= highest - lowest + 1:
        raise BadInput(
            f"1 to {STEPS} levels between timesteps 0 and {STEPS - 1}",
            f"{count} levels from {highest} down to {lowest}",
            "The default is 5 levels from 100 down to 20.",
        )
    if placement not in ("time", "sigma", "log_sigma"):
        raise BadInput("placement 'time', 'sigma' or 'log_sigma'", repr(placement), "The default is 'time'.")

    def height(t: int) -> float:
        sigma = float(t) if placement == "time" else sigma_of_timestep(t)
        return math.log(sigma) if placement == "log_sigma" else sigma

    scale = {t: height(t) for t in range(lowest, highest + 1)}
    top, bottom = scale[highest], scale[lowest]
    levels: list[int] = []
    for place in range(count):
        wanted = top + (bottom - top) * place / max(1, count - 1)
        # The timesteps still free, leaving one for each level that is yet to come.
        last = levels[-1] - 1 if levels else highest
        free = range(lowest + count - 1 - place, last + 1)
        levels.append(min(free, key=lambda t: abs(scale[t] - wanted)))
    return tuple(levels)


#: Usual strengths of the perceptual term by psi, where they are not those of the others: the model's own features
#: bend more within a step, and a larger one leaves their slope.
_ZETA2 = {"ldm": 0.01}


def usual_zeta2(psi: str | None) -> float:
    """The strength of the perceptual term that goes with a psi, by its name."""
    return _ZETA2.get(psi or "", GuidanceOptions().zeta2)


@dataclass(frozen=True, slots=True)
class GuidanceOptions:
    """Settings of a guided path.

    Attributes:
        timesteps: DDPM timesteps of the noise levels, falling; a flow model takes the sigma of equal signal-to-noise
            ratio. :func:`place_levels` makes others.
        zeta1: Strength of the measurement term; 0 switches it off.
        zeta2: Strength of the perceptual term; 0 switches it off. See :func:`usual_zeta2` for psi ``ldm``.
        normalised: Divide each row's gradient by its root mean square, so that zeta is the root mean square of the
            change in a latent value, whatever the picture, psi and resolution. Otherwise zeta multiplies the gradient
            itself: of the *sum* over pixels for the measurement, of psi's own distance for the perceptual term.
        squared: The gradient of the squared norm; otherwise of the norm. Normalised, both are the same.
        start: ``noise``: the clean latent plus seeded noise at the first level. ``inversion``: DDIM inversion up to it.
        through: ``x0``: gradients at z0|t only, no back-propagation through the denoiser. ``denoiser``: through it.
        measurement: Where the measurement term compares: ``pixels`` through the decoder, or ``latent`` without it.
        eta: DDIM's share of fresh noise, 0 (deterministic) to 1.
        decoder: ``full``, or ``tiny`` for the host's tiny autoencoder, when it has one.
        seed: Seed of the start; every level's fresh noise has its own, which other levels do not change.
        growth: A row whose energy grows beyond this multiple of its first one is given up as diverging.
        most_rows: Rows that share a forward at most, whatever memory would hold.
    """

    timesteps: tuple[int, ...] = (100, 80, 60, 40, 20)
    zeta1: float = 0.03
    zeta2: float = 0.03
    normalised: bool = True
    squared: bool = True
    start: Literal["noise", "inversion"] = "noise"
    through: Literal["x0", "denoiser"] = "x0"
    measurement: Literal["pixels", "latent"] = "pixels"
    eta: float = 0.0
    decoder: Literal["full", "tiny"] = "full"
    seed: int = 0
    growth: float = 100.0
    most_rows: int = 32

    def __post_init__(self) -> None:
        steps = self.timesteps
        falling = all(a > b for a, b in pairwise(steps))
        if not steps or not falling or not all(0 <= t < STEPS for t in steps):
            raise BadInput(
                f"falling timesteps from {STEPS - 1} to 0", str(steps), "The default: (100, 80, 60, 40, 20)."
            )
        zetas = (self.zeta1, self.zeta2)
        if not all(math.isfinite(zeta) and zeta >= 0.0 for zeta in zetas):
            raise BadInput("finite zetas ≥ 0", str(zetas), "0 switches a term off.")
        if not 0.0 <= self.eta <= 1.0:
            raise BadInput("eta from 0 to 1", str(self.eta), "0 is deterministic DDIM.")
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise BadInput(
                    f"{field} {' or '.join(map(repr, known))}", repr(getattr(self, field)), "Take one of them."
                )
        if not (math.isfinite(self.growth) and self.growth > 1.0):
            raise BadInput("a finite growth > 1", str(self.growth), "The default is 100.")
        if self.most_rows < 1:
            raise BadInput("at least 1 row in a forward", str(self.most_rows), "The default is 32.")

    def to_dict(self) -> dict[str, Any]:
        """All that changes a value, as plain types."""
        values = {**asdict(self), "timesteps": list(self.timesteps)}
        del values["most_rows"]
        return values


_CHOICES = {
    "start": ("noise", "inversion"),
    "through": ("x0", "denoiser"),
    "measurement": ("pixels", "latent"),
    "decoder": ("full", "tiny"),
}
