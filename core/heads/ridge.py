"""Ridge regression in closed form, for a whole path of penalties from one decomposition.

w = (XᵀX + λI)⁻¹ Xᵀy with the mean of y left unpenalised. λ is given per row: λ = penalty · N. Rows of X have a mean
squared length of about 1 (:class:`~.scaling.Scaler`), so penalties mean the same for every set and every fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Penalties tried by cross-validation.
PENALTIES: tuple[float, ...] = tuple(10.0 ** (-5.0 + 0.25 * step) for step in range(25))
#: Directions kept for the spread of a prediction.
DIRECTIONS = 32
_RANK = 1e-12


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Centred rows X = U S Vᵀ, as far as ridge regression needs it.

    Attributes:
        mean: [D] of the rows.
        basis: V [D, R].
        energy: S² [R], largest first.
        rows: N.
    """

    mean: Tensor
    basis: Tensor
    energy: Tensor
    rows: int

    @classmethod
    def of(cls, x: Tensor) -> Decomposition:
        """Of rows [N, D] in fp64, through the smaller Gram matrix."""
        mean = x.mean(0)
        x = x - mean
        if x.shape[0] < x.shape[1]:
            energy, left = torch.linalg.eigh(x @ x.T)
            kept = energy > _RANK * energy[-1].clamp_min(1e-300)
            basis = x.T @ (left[:, kept] / energy[kept].sqrt())
        else:
            energy, basis = torch.linalg.eigh(x.T @ x)
            kept = energy > _RANK * energy[-1].clamp_min(1e-300)
            basis = basis[:, kept]
        return cls(mean, basis.flip(1), energy[kept].flip(0), x.shape[0])

    def weights(self, x: Tensor, y: Tensor, penalties: Sequence[float]) -> Tensor:
        """Weights [D, P] for the same rows x [N, D], targets y [N] and each penalty."""
        return self.basis @ self.coefficients(x, y, penalties)

    def coefficients(self, x: Tensor, y: Tensor, penalties: Sequence[float]) -> Tensor:
        """:meth:`weights` in the coordinates of the basis [R, P]."""
        answer = self.basis.T @ ((x - self.mean).T @ (y - y.mean()))
        return answer[:, None] / (self.energy[:, None] + self.lambdas(penalties))

    def lambdas(self, penalties: Sequence[float]) -> Tensor:
        """λ [P]."""
        return self.rows * torch.tensor(list(penalties), dtype=torch.float64)

    def doubt(self, x: Tensor, penalties: Sequence[float], directions: int = DIRECTIONS) -> Tensor:
        """Posterior variance of the prediction in units of the noise [M, P]: xᵀ (XᵀX + λI)⁻¹ x.

        Beyond the first ``directions`` the prior's variance 1/λ is used: more, never less. A constant factor does not
        matter, because spreads are scaled by what was observed on held-out pictures (:mod:`.spread`).
        """
        return doubt(x - self.mean, self.basis[:, :directions], self.energy[:directions], self.lambdas(penalties))


def doubt(x: Tensor, basis: Tensor, energy: Tensor, lambdas: Tensor) -> Tensor:
    """Centred rows [M, D], a basis [D, R] with its energies [R], λ [P] → posterior variances [M, P]."""
    along = (x @ basis).square()
    beyond = (x.square().sum(1) - along.sum(1)).clamp_min(0.0)
    return along @ (1.0 / (energy[:, None] + lambdas)) + beyond[:, None] / lambdas


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted ridge regression on scaled features.

    Attributes:
        weights: [D].
        intercept: The answer at the training rows' mean is ``intercept + mean · weights``.
        mean: [D] of the training rows.
        basis: [D, R] leading directions of the training rows.
        energy: [R].
        strength: λ.
    """

    weights: Tensor
    intercept: float
    mean: Tensor
    basis: Tensor
    energy: Tensor
    strength: float

    kind = "ridge"

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, penalty: float) -> Ridge:
        """On scaled rows [N, D] and targets [N]."""
        x, y = x.double(), y.double()
        parts = Decomposition.of(x)
        weights = parts.weights(x, y, [penalty])[:, 0]
        return cls(
            weights,
            float(y.mean() - parts.mean @ weights),
            parts.mean,
            parts.basis[:, :DIRECTIONS].contiguous(),
            parts.energy[:DIRECTIONS].contiguous(),
            float(parts.rows * penalty),
        )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled rows [M, D] → predictions [M] and their doubts [M]."""
        x = x.double()
        strength = torch.tensor([self.strength], dtype=torch.float64)
        return x @ self.weights + self.intercept, doubt(x - self.mean, self.basis, self.energy, strength)[:, 0]

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        numbers = torch.tensor([self.intercept, self.strength], dtype=torch.float64)
        return {
            "ridge.weights": self.weights,
            "ridge.mean": self.mean,
            "ridge.basis": self.basis.float(),
            "ridge.energy": self.energy,
            "ridge.numbers": numbers,
        }

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Ridge:
        """The inverse of :meth:`tensors`."""
        intercept, strength = tensors["ridge.numbers"].tolist()
        weights, mean, basis, energy = (tensors[f"ridge.{name}"].double() for name in _FIELDS)
        return cls(weights, intercept, mean, basis, energy, strength)


_FIELDS = ("weights", "mean", "basis", "energy")


class RidgePath:
    """Ridge regressions for every penalty of a path; what :mod:`.fit` cross-validates.

    Args:
        penalties: λ per row, tried in this order.
    """

    def __init__(self, penalties: Sequence[float] = PENALTIES) -> None:
        self.penalties = tuple(penalties)

    def path(self, x: Tensor, y: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """Fit on rows [N, D] and targets [N]; predictions and doubts for ``unseen`` [M, D], both [M, P]."""
        parts = Decomposition.of(x)
        inside = (unseen - parts.mean) @ parts.basis
        values = inside @ parts.coefficients(x, y, self.penalties) + y.mean()
        return values, parts.doubt(unseen, self.penalties)

    def fit(self, x: Tensor, y: Tensor, candidate: int) -> Ridge:
        """One of them, on rows [N, D] and targets [N]."""
        return Ridge.fit(x, y, self.penalties[candidate])

    def describe(self, candidate: int) -> dict[str, float]:
        """What a candidate is, for the report."""
        return {"penalty": self.penalties[candidate]}
