"""From DDPM timesteps to sigma, for methods whose papers speak of t in [0, 999]; and from sigma to noised latents.

Stable Diffusion's schedule (scaled linear betas from .00085 to .012 over 1000 steps); flow models get the sigma of
equal signal-to-noise ratio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadInput
from .contracts import Prediction

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 1000


def sigma_of_timestep(t: int, prediction: Prediction = "eps") -> float:
    """The noise level of timestep ``t`` (0 to 999).

    For eps and v: sigma = sqrt((1 - alpha_bar) / alpha_bar), z_t = z + sigma * eps. For flow the sigma with the same
    signal-to-noise ratio, sigma / (1 + sigma), z_t = (1 - sigma) * z + sigma * eps.

    Raises:
        BadInput: ``t`` lies outside the schedule.
    """
    if not 0 <= t < STEPS:
        raise BadInput(f"a timestep from 0 to {STEPS - 1}", str(t), "Use the paper's integer timesteps.")
    betas = np.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=np.float64) ** 2
    alpha_bar = float(np.prod(1.0 - betas[: t + 1]))
    sigma = ((1.0 - alpha_bar) / alpha_bar) ** 0.5
    return sigma / (1.0 + sigma) if prediction == "flow" else sigma


def noised(z: Tensor, eps: Tensor, sigma: float | Tensor, prediction: Prediction) -> Tensor:
    """Clean latents [N, C, h, w] and noise that fits them, at one sigma or at sigma [N] → z_t [N, C, h, w]."""
    level = sigma if isinstance(sigma, float | int) else sigma.view(-1, *[1] * (z.ndim - 1))
    return (1.0 - level) * z + level * eps if prediction == "flow" else z + level * eps
