"""A linear head from pairs of which one is known to be better: no ratings are needed.

Minimises  Σ a_k log(1 + exp(-d_k · w)) + p/2 Σ (x_j · w - t_j)² + λ/2 |w|²  over pairs d = better - worse, with t a
weak prior on some rows. Convex; Newton's method in the space that the rows span.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput
from .ridge import DIRECTIONS, Decomposition, Ridge

#: Directions of the rows that are used.
_SPAN = 256
_STEPS = 30


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which row is better than which.

    Attributes:
        better: [P] rows.
        worse: [P] rows.
        weight: [P] > 0.
    """

    better: Tensor
    worse: Tensor
    weight: Tensor

    def take(self, kept: Tensor) -> Pairs:
        """The pairs where the mask [P] holds."""
        return Pairs(self.better[kept], self.worse[kept], self.weight[kept])


@dataclass(frozen=True, slots=True)
class Prior:
    """Weak beliefs about single rows.

    Attributes:
        rows: [J].
        targets: [J] on a scale of unit spread.
        share: Weight of all of them together, as a share of the pairs' weight.
    """

    rows: Tensor
    targets: Tensor
    share: float


def fit_rank(x: Tensor, pairs: Pairs, penalty: float, prior: Prior | None = None) -> Ridge:
    """Scaled rows [N, D] and pairs of them → a linear regressor, higher for the better.

    Args:
        x: Rows in fp64.
        pairs: At least one.
        penalty: λ as a share of the pairs' weight.
        prior: Weak beliefs.

    Raises:
        BadInput: no pairs.
    """
    if len(pairs.better) < 1:
        raise BadInput("pairs of which one is better", "none", "Give more pictures.")
    parts = Decomposition.of(x)
    basis = parts.basis[:, :_SPAN]
    inside = (x - parts.mean) @ basis
    weights = basis @ _newton(inside, pairs, penalty, prior)
    return Ridge(
        weights,
        float(-parts.mean @ weights),
        parts.mean,
        parts.basis[:, :DIRECTIONS].contiguous(),
        parts.energy[:DIRECTIONS].contiguous(),
        float(max(penalty, 1e-6) * len(x)),
    )


def _newton(x: Tensor, pairs: Pairs, penalty: float, prior: Prior | None) -> Tensor:
    apart = x[pairs.better] - x[pairs.worse]
    share = pairs.weight.double() / pairs.weight.sum()
    w = torch.zeros(x.shape[1], dtype=torch.float64)
    known = x[:0] if prior is None else x[prior.rows]
    targets = torch.zeros(0, dtype=torch.float64) if prior is None else prior.targets.double()
    strength = 0.0 if prior is None or not len(known) else prior.share / len(known)

    def loss(w: Tensor) -> Tensor:
        belief = 0.5 * strength * (known @ w - targets).square().sum()
        return (share * F.softplus(-apart @ w)).sum() + belief + 0.5 * penalty * w.square().sum()

    eye = torch.eye(len(w), dtype=torch.float64)
    value = loss(w)
    for _ in range(_STEPS):
        wrong = torch.sigmoid(-apart @ w)
        gradient = -apart.T @ (share * wrong) + strength * known.T @ (known @ w - targets) + penalty * w
        curve = apart.T @ ((share * wrong * (1.0 - wrong))[:, None] * apart) + strength * known.T @ known
        step = torch.linalg.solve(curve + (penalty + 1e-12) * eye, gradient)
        size = 1.0
        while size > 1e-4 and loss(w - size * step) > value:
            size /= 2.0
        w = w - size * step
        before, value = value, loss(w)
        if float(before - value) <= 1e-10 * float(before):
            break
    return w
