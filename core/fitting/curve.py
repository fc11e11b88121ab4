"""How the agreement grows with the number of rated pictures: is it worth rating more?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..benchmark.agreement import agreement
from ..heads.fit import LEAST, FitOptions, hold_out
from ..heads.folds import folds_by_group
from ..heads.layout import Layout
from ..heads.scaling import Scaler

#: Shares of the pictures.
SHARES = (0.25, 0.5, 0.75, 1.0)
_FOLDS, _INNER = 5, 3


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Agreement of heads that were fitted to about ``pictures`` pictures, each scoring pictures that it had not seen.

    Attributes:
        pictures: Fitted to, on average over the folds.
        srcc: Over all pictures, each held out once.
        srcc_low: Lower end of the 95 % bootstrap interval.
        srcc_high: Upper end.
        plcc: Pearson's correlation.
    """

    pictures: int
    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def learning_curve(
    features: Tensor,
    ratings: Tensor,
    groups: Sequence[Hashable],
    layout: Layout,
    options: FitOptions,
    watch: Callable[[str, int, int], None] | None = None,
    shares: Sequence[float] = SHARES,
) -> tuple[CurvePoint, ...]:
    """Fit to growing parts of the other folds (whole groups, drawn by the options' seed) and score each fold.

    Parts that are too small to be fitted are left out.
    """
    fold = torch.tensor(folds_by_group(groups, _FOLDS, options.seed))
    names = fold.unique().tolist()
    points = []
    for number, share in enumerate(shares):
        values = torch.full((len(ratings),), float("nan"), dtype=torch.float64)
        used = []
        for name in names:
            rest = [place for place in range(len(groups)) if int(fold[place]) != name]
            part = _part(rest, groups, share, options.seed)
            used.append(len(part))
            here = (fold == name).nonzero().flatten()
            fitted = _scored(features[part], ratings[part], [groups[place] for place in part], layout, options)
            if fitted is not None:
                values[here] = fitted(features[here])
        if bool(values.isfinite().all()) and float(values.std()) > 0.0:
            found = agreement(values.tolist(), ratings.tolist())
            points.append(
                CurvePoint(round(sum(used) / len(used)), found.srcc, found.srcc_low, found.srcc_high, found.plcc)
            )
        if watch is not None:
            watch("learning curve", number + 1, len(shares))
    return tuple(points)


def _part(places: Sequence[int], groups: Sequence[Hashable], share: float, seed: int) -> list[int]:
    """A share of the groups of these places."""
    names = list(dict.fromkeys(groups[place] for place in places))
    order = np.random.default_rng(seed).permutation(len(names))
    kept = {names[number] for number in order[: max(2, round(share * len(names)))]}
    return [place for place in places if groups[place] in kept]


def _scored(
    features: Tensor, ratings: Tensor, groups: Sequence[Hashable], layout: Layout, options: FitOptions
) -> Callable[[Tensor], Tensor] | None:
    if len(ratings) < LEAST or len(set(groups)) < 2 or float(ratings.std()) == 0.0:
        return None
    scaler, path = Scaler.fit(features, layout), options.path()
    x = scaler(features)
    best = hold_out(x, ratings, groups, path, _INNER, options.seed).best
    regressor = path.fit(x, ratings, best)
    return lambda unseen: regressor(scaler(unseen))[0]
