"""Pairs of which one is known to be worse, and how often held-out ones are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..heads.fit import rotated
from ..heads.rank import Pairs, Prior, fit_rank
from .ladder_steps import LadderOptions, Step

#: Penalties tried.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
#: Pairs across pictures: severities this far apart, so many per damaged picture, of this weight.
_APART, _ACROSS, _ACROSS_WEIGHT = 3, 2, 0.25


@dataclass(frozen=True, slots=True)
class LadderReport:
    """How held-out steps of damage were told; each by a head that had not seen its picture.

    Attributes:
        steps: Steps of kinds of damage that the head had seen on other pictures.
        falling: Share of them at which the score fell.
        low: Lower end of its 95 % bootstrap interval over pictures.
        high: Upper end.
        unseen_steps: Steps of kinds that the head had never seen.
        unseen_falling: Share of these.
        unseen_low: Lower end.
        unseen_high: Upper end.
    """

    steps: int
    falling: float
    low: float
    high: float
    unseen_steps: int
    unseen_falling: float
    unseen_low: float
    unseen_high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Known:
    """Pairs with the pictures and kinds that they are of; ``None`` is no damage or any."""

    pairs: Pairs
    kinds: tuple[str, ...]


def within_ladders(steps: Sequence[Step]) -> Known:
    """Every two neighbouring severities of a ladder, and the untouched picture with the last."""
    clean = {step.picture: row for row, step in enumerate(steps) if step.severity == 0}
    ladders: dict[tuple[int, str], list[int]] = {}
    for row, step in enumerate(steps):
        if step.severity:
            ladders.setdefault((step.picture, step.kind), [clean[step.picture]]).append(row)
    found = [(a, b, kind) for (_, kind), rows in ladders.items() for a, b in pairwise(rows)]
    better, worse = (torch.tensor([pair[side] for pair in found]) for side in (0, 1))
    return Known(Pairs(better, worse, torch.ones(len(found))), tuple(kind for _, _, kind in found))


def across_pictures(steps: Sequence[Step], seed: int) -> Known:
    """Damaged pictures against others that are much less damaged: scores of different pictures can be compared."""
    draw = np.random.default_rng(seed)
    found = []
    for row, step in enumerate(steps):
        lighter = [
            other
            for other, one in enumerate(steps)
            if one.picture != step.picture and one.severity == 0 and step.severity >= _APART
        ]
        found += [(int(other), row, step.kind) for other in draw.permutation(lighter)[:_ACROSS]]
    better, worse = (torch.tensor([pair[side] for pair in found], dtype=torch.long) for side in (0, 1))
    weight = torch.full((len(found),), _ACROSS_WEIGHT)
    return Known(Pairs(better, worse, weight), tuple(kind for _, _, kind in found))


def joined(*parts: Known) -> Pairs:
    """All pairs together."""
    return Pairs(*(torch.cat([getattr(part.pairs, name) for part in parts]) for name in ("better", "worse", "weight")))


def prior_of(rows: Sequence[int], beliefs: Tensor | None, options: LadderOptions) -> Prior | None:
    """The judge's scores of these rows, where it gave any."""
    if beliefs is None:
        return None
    known = [row for row in rows if bool(beliefs[row].isfinite())]
    return Prior(torch.tensor(known), beliefs[known], options.prior) if known else None


def validated(
    x: Tensor,
    steps: Sequence[Step],
    fold: Sequence[int],
    within: Known,
    across: Known,
    beliefs: Tensor | None,
    options: LadderOptions,
) -> tuple[int, LadderReport]:
    """The best penalty over all folds, and the report with each fold's penalty chosen by the other folds."""
    x = rotated(x)
    number, names = torch.tensor(list(fold)), sorted(set(fold))
    kind_fold = {kind: names[place % len(names)] for place, kind in enumerate(options.kinds)}
    margins: dict[int, Tensor] = {}
    held: dict[int, Tensor] = {}
    for name in names:
        here = number == name
        parts = [_seen(part, here, kind_fold, name) for part in (within, across)]
        prior = prior_of((~here).nonzero().flatten().tolist(), beliefs, options)
        regressors = [fit_rank(x, joined(*parts), p, prior) for p in PENALTIES]
        held[name] = here[within.pairs.better]
        values = torch.stack([regressor(x)[0] for regressor in regressors], 1)
        margins[name] = (values[within.pairs.better] - values[within.pairs.worse])[held[name]]
    losses = {name: F.softplus(-margin).mean(0) for name, margin in margins.items()}
    total = torch.stack(list(losses.values())).mean(0)
    picture = torch.tensor([steps[row].picture for row in within.pairs.better.tolist()])
    kinds = torch.tensor([kind_fold[kind] for kind in within.kinds])
    fell, who, unseen = [], [], []
    for name in names:
        others = torch.stack([losses[other] for other in names if other != name]).mean(0)
        fell.append(margins[name][:, int(others.argmin())] > 0)
        who.append(picture[held[name]])
        unseen.append(kinds[held[name]] == name)
    return int(total.argmin()), _report(torch.cat(fell), torch.cat(who), torch.cat(unseen), options.seed)


def _seen(part: Known, here: Tensor, kind_fold: dict[str, int], name: int) -> Known:
    """The pairs of pictures and kinds that training may see when fold ``name`` is held out."""
    kinds = torch.tensor([kind_fold[kind] != name for kind in part.kinds], dtype=torch.bool)
    kept = kinds & ~here[part.pairs.better] & ~here[part.pairs.worse]
    return Known(part.pairs.take(kept), tuple(k for k, keep in zip(part.kinds, kept.tolist(), strict=True) if keep))


def _report(fell: Tensor, picture: Tensor, unseen: Tensor, seed: int) -> LadderReport:
    seen_low, seen_high = _interval(fell[~unseen], picture[~unseen], seed)
    new_low, new_high = _interval(fell[unseen], picture[unseen], seed)
    return LadderReport(
        int((~unseen).sum()), _share(fell[~unseen]), seen_low, seen_high,
        int(unseen.sum()), _share(fell[unseen]), new_low, new_high,
    )  # fmt: skip


def _share(fell: Tensor) -> float:
    return float(fell.double().mean()) if len(fell) else 0.0


def _interval(fell: Tensor, picture: Tensor, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """95 % percentile bootstrap over pictures."""
    if not len(fell):
        return 0.0, 0.0
    names, place = np.unique(picture.numpy(), return_inverse=True)
    right, count = np.bincount(place, fell.double().numpy()), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    low, high = np.percentile(right[drawn].sum(1) / count[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)
