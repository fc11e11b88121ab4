"""DDIM inversion: up the model's own path from the clean latent to the first noise level, without drawing noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..backbone.schedule import sigma_of_timestep
from .step import ddim, eps_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Prediction


def climb(sigmas: Sequence[float], prediction: Prediction) -> list[tuple[float, float]]:
    """(level to ask the model at, level to go to), rising to ``sigmas[0]``.

    As in DDIM (Song et al., 2021) the data are the state at t = 0, whose sigma is small but not 0. A path that ends at
    t = 0 itself starts there, and has one step fewer.
    """
    lowest = sigma_of_timestep(0, prediction)
    rising = [lowest, *(sigma for sigma in reversed(sigmas) if sigma > lowest)]
    return list(pairwise(rising))


def inverted(
    estimate: Callable[[Tensor, float], Tensor], clean: Tensor, sigmas: Sequence[float], prediction: Prediction
) -> Tensor:
    """Clean latents [N, C, h, w] → their state at ``sigmas[0]``, one forward per step of :func:`climb`.

    Args:
        estimate: (z_t, sigma) → x0, unguided.
        clean: The latents.
        sigmas: The path's levels, falling.
        prediction: The model's rule.
    """
    z = clean
    for sigma, higher in climb(sigmas, prediction):
        x0 = estimate(z, sigma)
        z = ddim(x0, eps_of(z, x0, sigma, prediction), sigma, higher, prediction)
    return z
