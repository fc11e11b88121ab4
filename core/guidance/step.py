"""The pure sums of a guided step, in the host-independent sigma convention.

z_t = z + sigma · eps (eps- and v-prediction) or z_t = (1 - sigma) · z + sigma · eps (flow). LGDM's step (Saini, Liao,
Ye, Bovik, 2025, arXiv 2506.00327), as we read it, reimplemented and not by its authors:

    z'  = z0|t − ζ1 ∇ ‖y − D(z0|t)‖²
    z'' = z'   − ζ2 ∇ ‖ψ(y) − ψ(D(z'))‖²
    z_{t−1} = √ᾱ_{t−1} · z'' + √(1 − ᾱ_{t−1} − σ²) · ε_θ + σ · noise

With z_t / √ᾱ_t in place of z_t, and sigma² = (1 − ᾱ) / ᾱ, the last line becomes
z_{t−1} = z'' + √(sigma_{t−1}² − τ²) · ε_θ + τ · noise. DDIM's σ² = η² (1 − ᾱ_{t−1}) / (1 − ᾱ_t) · (1 − ᾱ_t / ᾱ_{t−1})
over ᾱ_{t−1} gives τ² = η² sigma_{t−1}² (1 − sigma_{t−1}² / sigma_t²). A flow model's state is (1 − sigma) times one of
noise level sigma / (1 − sigma), so its τ is (1 − sigma_{t−1}) times that of the levels so translated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Prediction


def eps_of(z_t: Tensor, x0: Tensor, sigma: float, prediction: Prediction) -> Tensor:
    """The noise ε_θ that z_t holds if ``x0`` is its clean part; sigma > 0."""
    return (z_t - (1.0 - sigma) * x0) / sigma if prediction == "flow" else (z_t - x0) / sigma


def fresh_share(sigma: float, after: float, prediction: Prediction, eta: float) -> float:
    """τ: the standard deviation of the fresh noise in the step from ``sigma`` down to ``after``."""
    if eta == 0.0 or after == 0.0:
        return 0.0
    if prediction == "flow":
        ratio = after / (1.0 - after) * (1.0 - sigma) / sigma  # of the translated levels; 0 from pure noise
        return eta * after * max(0.0, 1.0 - ratio**2) ** 0.5
    return eta * after * max(0.0, 1.0 - (after / sigma) ** 2) ** 0.5


def ddim(
    x0: Tensor,
    eps: Tensor,
    sigma: float,
    after: float,
    prediction: Prediction,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """DDIM's re-noising: the clean estimate at ``sigma`` and its noise → the state at ``after``, lower or 0.

    Args:
        x0: z'' [N, C, h, w].
        eps: ε_θ, from the *unguided* estimate.
        sigma: The level it was estimated at.
        after: The level to go to.
        prediction: The model's rule.
        eta: Share of fresh noise; ``noise`` is needed above 0.
        noise: Standard normal, of a shape that fits ``x0``.
    """
    fresh = fresh_share(sigma, after, prediction, eta)
    kept = max(0.0, after**2 - fresh**2) ** 0.5
    clean = (1.0 - after) * x0 if prediction == "flow" else x0
    state = clean + kept * eps
    return state if fresh == 0.0 or noise is None else state + fresh * noise


def root_mean_square(values: Tensor, cells: Tensor | None = None) -> Tensor:
    """Over each row, [N]; each cell counts as much as ``cells`` [N, 1, h, w] says, where they are given."""
    squares = values.square()
    if cells is None:
        return squares.flatten(1).mean(1).sqrt()
    total = cells.flatten(1).sum(1) * values.shape[1]
    found = (squares * cells).flatten(1).sum(1) / torch.where(total > 0, total, torch.ones_like(total))
    return found.sqrt()


def cells_of(weight: Tensor, latents: Tensor) -> Tensor:
    """Weights of pixels [N, 1, H, W] → those of the cells of latents [N, C, h, w], [N, 1, h, w]."""
    return F.adaptive_avg_pool2d(weight.to(latents), (latents.shape[-2], latents.shape[-1]))


def move(
    z: Tensor,
    gradient: Tensor,
    energy: Tensor,
    zeta: float,
    *,
    normalised: bool,
    squared: bool,
    cells: Tensor | None = None,
) -> Tensor:
    """One term's step: z − ζ ∇E, or ∇√E, or ζ times the gradient over its root mean square.

    Args:
        z: Latents [N, C, h, w].
        gradient: Of the squared energy, same shape.
        energy: The squared energy [N]; the norm's gradient is that of the square over twice the norm.
        zeta: Strength; a row of zero gradient stays where it is.
        normalised: Whether zeta is the root mean square of the change.
        cells: [N, 1, h, w], the cells that this root mean square is taken over, by weight; all when left out. A small
            region then moves as far as a whole picture does.
        squared: Whether the energy is the square.
    """
    if normalised:
        divisor = root_mean_square(gradient, cells)
    elif squared:
        return z - zeta * gradient
    else:
        divisor = 2.0 * energy.clamp_min(0.0).sqrt()
    safe = torch.where(divisor > 0, divisor, torch.ones_like(divisor))
    direction = torch.where(_rows(divisor > 0, z), gradient / _rows(safe, z), torch.zeros_like(gradient))
    return z - zeta * direction


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
