"""Fit a head to rated pictures, cross-validated by content."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import BadInput
from .folds import folds_by_group
from .head import Head, HeadMeta, Regressor
from .kernel import KernelPath
from .layout import Layout
from .link import LinkKind, fit_link
from .mlp import MlpPath
from .ridge import RidgePath
from .scaling import Scaler
from .spread import WIDE, coverage, error_scale

Model = Literal["ridge", "kernel", "mlp"]
#: Fewest pictures that a head is fitted to.
LEAST = 10


class Path(Protocol):
    """Regressors that differ in what cross-validation chooses."""

    def path(self, x: Tensor, y: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """Fit on rows [N, D] and targets [N]; predictions and doubts for ``unseen`` [M, D], both [M, candidates]."""
        ...

    def fit(self, x: Tensor, y: Tensor, candidate: int) -> Regressor:
        """One of them."""
        ...

    def describe(self, candidate: int) -> Mapping[str, Any]:
        """What a candidate is."""
        ...


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a head is fitted.

    Attributes:
        model: ``ridge`` (linear; its parts can be shown as a map), ``kernel`` or ``mlp``.
        link: From raw values to the scale.
        scale: Ends of the ratings' scale.
        folds: Of the cross-validation.
        seed: Draws the folds, landmarks and first weights.
    """

    model: Model = "ridge"
    link: LinkKind = "logistic"
    scale: tuple[float, float] = (0.0, 100.0)
    folds: int = 5
    seed: int = 0

    def path(self) -> Path:
        """What is cross-validated.

        Raises:
            BadInput: an unknown model.
        """
        if self.model == "ridge":
            return RidgePath()
        if self.model == "kernel":
            return KernelPath(seed=self.seed)
        if self.model == "mlp":
            return MlpPath(self.seed)
        raise BadInput("a head out of ridge, kernel, mlp", repr(self.model), "The default is ridge.")


@dataclass(frozen=True, slots=True)
class FitReport:
    """What cross-validation saw. Every picture was predicted by a head that had not seen it nor its group.

    Attributes:
        held_out: [N] scores of the pictures while they were held out; what the head may claim rests on these.
        fold: [N] the fold in which each was held out.
        chosen: What cross-validation chose for the head itself.
        rmse: Of ``held_out``, in units of the score.
        within_one: Share of ratings within one spread of the held-out score; .68 is right.
        within_wide: Share within 1.96 spreads; .95 is right.
    """

    held_out: Tensor
    fold: tuple[int, ...]
    chosen: Mapping[str, Any]
    rmse: float
    within_one: float
    within_wide: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head and what cross-validation says of it."""

    head: Head
    report: FitReport


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Raw predictions of held-out pictures.

    Attributes:
        values: [N] before the link.
        doubts: [N].
        fold: [N].
        best: The candidate with the least error over all folds.
    """

    values: Tensor
    doubts: Tensor
    fold: tuple[int, ...] = field(default=())
    best: int = 0


def fit_head(
    features: Tensor,
    targets: Tensor,
    groups: Sequence[Hashable],
    layout: Layout,
    meta: HeadMeta,
    options: FitOptions | None = None,
) -> Fitted:
    """Features [N, D], ratings [N] and content groups [N] → a head fitted to all of them, and its report.

    Scores are the training pictures' for the meta's centre and spread; its scale becomes the options'. The link has
    two numbers, fitted to the held-out predictions of all folds together; it is monotone and changes no ranking.

    Raises:
        BadInput: shapes that do not belong together, too few pictures or groups, NaN, or ratings that are all alike.
    """
    options = options or FitOptions()
    features, targets = _checked(features, targets, groups, layout, options.scale)
    scaler = Scaler.fit(features, layout)
    x, path = scaler(features), options.path()
    held = hold_out(x, targets, groups, path, options.folds, options.seed)
    link = fit_link(held.values, targets, options.link, options.scale)
    scores = link(held.values)
    errors = targets - scores
    head = Head(layout, meta, scaler, path.fit(x, targets, held.best), link, error_scale(errors, held.doubts))
    own = head.predict(features).value
    spread = float(own.std()) or 1.0
    meta = replace(meta, pictures=len(x), scale=options.scale, centre=float(own.mean()), spread=spread)
    report = FitReport(
        held_out=scores,
        fold=held.fold,
        chosen={"model": options.model, "link": options.link, **path.describe(held.best)},
        rmse=float(errors.square().mean().sqrt()),
        within_one=coverage(errors, held.doubts, held.fold),
        within_wide=coverage(errors, held.doubts, held.fold, WIDE),
    )
    return Fitted(replace(head, meta=meta), report)


def hold_out(x: Tensor, y: Tensor, groups: Sequence[Hashable], path: Path, folds: int = 5, seed: int = 0) -> HeldOut:
    """Nested cross-validation of scaled rows [N, D] and targets [N].

    What predicts a fold is chosen without it: by the errors on each other fold g of regressors that had seen neither.
    One regressor per pair of folds serves both of its folds.
    """
    x = rotated(x)
    fold = folds_by_group(groups, folds, seed)
    number = torch.tensor(fold)
    names = number.unique().tolist()
    inner: dict[int, Tensor] = {name: torch.zeros(()) for name in names}
    for f, g in combinations(names, 2):
        if len(names) == 2:
            break
        left = (number != f) & (number != g)
        found, _ = path.path(x[left], y[left], x[~left])
        wrong = (found - y[~left, None]).square()
        for seen, other in ((f, g), (g, f)):
            # Its errors on g speak for the choice made for f, and the reverse: it has seen neither.
            inner[seen] = inner[seen] + wrong[number[~left] == other].sum(0)
    values, doubts, total = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64), 0.0
    for f in names:
        here = number == f
        found, doubt = path.path(x[~here], y[~here], x[here])
        total = total + (found - y[here, None]).square().sum(0)
        best = int(inner[f].argmin()) if inner[f].ndim else found.shape[1] // 2
        values[here], doubts[here] = found[:, best], doubt[:, best]
    return HeldOut(values, doubts, tuple(fold), int(torch.as_tensor(total).argmin()))


def rotated(x: Tensor) -> Tensor:
    """Rows in coordinates of the space that they span: as far apart as before, and no longer than they are many."""
    if x.shape[1] <= x.shape[0]:
        return x
    energy, vectors = torch.linalg.eigh(x @ x.T)
    return vectors * energy.clamp_min(0.0).sqrt()


def _checked(
    features: Tensor, targets: Tensor, groups: Sequence[Hashable], layout: Layout, scale: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    count = len(groups)
    if tuple(features.shape) != (count, layout.size) or tuple(targets.shape) != (count,):
        raise BadInput(
            f"features [{count}, {layout.size}] and ratings [{count}], one per group",
            f"{list(features.shape)} and {list(targets.shape)}",
            "Leave out pictures without features or without a rating.",
        )
    features, targets = features.detach().cpu().double(), targets.detach().cpu().double()
    if count < LEAST or float(targets.std()) == 0.0:
        got = f"{count} pictures" if count < LEAST else f"{count} pictures all rated {float(targets[0]):g}"
        raise BadInput(f"at least {LEAST} pictures with different ratings", got, "Rate more pictures.")
    if not bool(features.isfinite().all() and targets.isfinite().all()):
        raise BadInput("finite features and ratings", "NaN or infinity", "Leave out pictures without a score.")
    if float(targets.min()) < min(scale) or float(targets.max()) > max(scale):
        got = f"{float(targets.min()):g} to {float(targets.max()):g}"
        raise BadInput(f"ratings from {scale[0]:g} to {scale[1]:g}", got, "Give the scale of the ratings.")
    return features, targets
