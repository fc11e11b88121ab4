"""Kernel ridge regression with a Gaussian kernel, on a few landmarks (Nyström).

A picture's answers to M landmark pictures, k(x, L) · (L's own kernel)^-½, are features for the ridge regression of
:mod:`.ridge`; so the closed form, the path of penalties and the doubt are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .ridge import PENALTIES, Decomposition, Ridge, RidgePath

#: Directions of the features that the kernel sees, and landmarks.
DIRECTIONS, LANDMARKS = 96, 256
#: Widths of the kernel tried, in units of the median distance.
WIDTHS = (1.0, 2.0, 4.0)
_FLOOR = 1e-4


@dataclass(frozen=True, slots=True)
class Basis:
    """Rows [N, D] → answers to landmarks [N, M].

    Attributes:
        mean: [D] of the training rows.
        directions: [D, R] leading directions of the training rows.
        landmarks: [M, R].
        whiten: [M, M] inverse root of the landmarks' own kernel.
        width: Of the kernel: k = exp(-d² / (2 width²)).
    """

    mean: Tensor
    directions: Tensor
    landmarks: Tensor
    whiten: Tensor
    width: float

    @classmethod
    def fit(cls, x: Tensor, factor: float, seed: int = 0) -> Basis:
        """On scaled rows [N, D]; ``seed`` draws the landmarks."""
        parts = Decomposition.of(x)
        directions = parts.basis[:, :DIRECTIONS].contiguous()
        inside = (x - parts.mean) @ directions
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:LANDMARKS]
        landmarks = inside[order].contiguous()
        apart = _squared(landmarks, landmarks)
        width = factor * float(apart[apart > 0].median().sqrt()) if bool((apart > 0).any()) else 1.0
        energy, vectors = torch.linalg.eigh(torch.exp(-apart / (2.0 * width**2)))
        whiten = vectors @ torch.diag(energy.clamp_min(_FLOOR).rsqrt()) @ vectors.T
        return cls(parts.mean, directions, landmarks, whiten, width)

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled rows [N, D] → [N, M]."""
        apart = _squared((x - self.mean) @ self.directions, self.landmarks)
        return torch.exp(-apart / (2.0 * self.width**2)) @ self.whiten


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [N, M]; from differences' norms, so that equal rows are exactly 0 apart."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True, slots=True)
class Kernel:
    """A fitted kernel ridge regression."""

    basis: Basis
    ridge: Ridge

    kind = "kernel"

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled rows [M, D] → predictions [M] and their doubts [M]."""
        return self.ridge(self.basis(x.double()))

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        names = ("mean", "directions", "landmarks", "whiten")
        own = {f"kernel.{name}": getattr(self.basis, name) for name in names}
        own["kernel.width"] = torch.tensor([self.basis.width], dtype=torch.float64)
        return {**own, **self.ridge.tensors()}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Kernel:
        """The inverse of :meth:`tensors`."""
        names = ("mean", "directions", "landmarks", "whiten")
        parts = [tensors[f"kernel.{name}"].double() for name in names]
        basis = Basis(parts[0], parts[1], parts[2], parts[3], float(tensors["kernel.width"]))
        return cls(basis, Ridge.of(tensors))


class KernelPath:
    """Every kernel width with every penalty; what :mod:`.fit` cross-validates."""

    def __init__(self, penalties: Sequence[float] = PENALTIES, seed: int = 0) -> None:
        self._ridges, self._seed = RidgePath(penalties), seed

    def path(self, x: Tensor, y: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """Fit on rows [N, D] and targets [N]; predictions and doubts for ``unseen`` [M, D], both [M, candidates]."""
        found = []
        for width in WIDTHS:
            basis = Basis.fit(x, width, self._seed)
            found.append(self._ridges.path(basis(x), y, basis(unseen)))
        return torch.cat([values for values, _ in found], 1), torch.cat([doubts for _, doubts in found], 1)

    def fit(self, x: Tensor, y: Tensor, candidate: int) -> Kernel:
        """One of them, on rows [N, D] and targets [N]."""
        width, penalty = divmod(candidate, len(self._ridges.penalties))
        basis = Basis.fit(x, WIDTHS[width], self._seed)
        return Kernel(basis, self._ridges.fit(basis(x), y, penalty))

    def describe(self, candidate: int) -> dict[str, Any]:
        """What a candidate is, for the report."""
        width, penalty = divmod(candidate, len(self._ridges.penalties))
        return {"width": WIDTHS[width], "landmarks": LANDMARKS, **self._ridges.describe(penalty)}
