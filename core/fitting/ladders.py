"""A head without ratings: the user's own pictures, damaged step by step, and which step is worse is known.

What comes out ranks; it claims no agreement with people. Its report says how often a further step of damage lowers the
score, on pictures that were held out, for kinds of damage that training saw and for kinds that it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..heads.folds import folds_by_group
from ..heads.head import Head
from ..heads.rank import fit_rank
from ..heads.scaling import Scaler
from ..methods.feature_cache import FeatureCache, extract_cached
from .ladder_check import PENALTIES, LadderReport, across_pictures, joined, prior_of, validated, within_ladders
from .ladder_steps import LadderOptions, Step, ladder
from .pictures import Pictures
from .rated import Watch, meta_of, stopping

if TYPE_CHECKING:
    from ..methods.contract import Scorer
    from ..methods.hyperfeatures import Hyperfeatures

#: Fewest pictures: folds hold whole pictures back.
LEAST = 4
_FOLDS = 4


@dataclass(frozen=True, slots=True)
class UnratedFit:
    """What came out: a head that ranks, how it tells damage, and reasons by place of pictures left out."""

    head: Head
    report: LadderReport
    left_out: dict[int, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"head": dict(self.head.meta.validation), "left_out": {str(p): r for p, r in self.left_out.items()}}


def fit_unrated(
    features: Hyperfeatures,
    pictures: Pictures,
    *,
    options: LadderOptions | None = None,
    judge: Scorer | None = None,
    cache: FeatureCache | None = None,
    watch: Watch | None = None,
) -> UnratedFit:
    """Pictures without ratings → a head that ranks.

    Args:
        features: Which features, of which model.
        pictures: Good ones, of the kind that the model makes; ratings are not looked at.
        options: Of the ladders.
        judge: Whose scores are the weak prior; ``None`` leaves it out.
        cache: Where features are kept.
        watch: Told of the work; may raise to stop.

    Raises:
        BadInput: too few pictures with features.
    """
    options = options or LadderOptions()
    steps, matrix, beliefs, reasons = _rows(features, pictures, options, judge, cache, watch)
    if len({step.picture for step in steps}) < LEAST:
        got = next(iter(reasons.values()), f"{len(pictures)}")
        raise BadInput(f"at least {LEAST} pictures with features", got, "Give more pictures, dozens are better.")
    scaler = Scaler.fit(matrix, features.layout)
    x = scaler(matrix)
    fold = folds_by_group([pictures.groups[step.picture] for step in steps], _FOLDS, options.seed)
    within, across = within_ladders(steps), across_pictures(steps, options.seed)
    best, report = validated(x, steps, fold, within, across, beliefs, options)
    regressor = fit_rank(x, joined(within, across), PENALTIES[best], prior_of(range(len(steps)), beliefs, options))
    head = Head(features.layout, meta_of(features, pictures, None), scaler, regressor)
    values = head.predict(matrix).value
    told = {**report.to_dict(), "how": _HOW, "ladders": asdict(options), "judge": judge is not None}
    meta = replace(
        head.meta,
        pictures=len({step.picture for step in steps}),
        centre=float(values.mean()),
        spread=float(values.std()) or 1.0,
        validation=told,
    )
    return UnratedFit(replace(head, meta=meta), report, reasons)


_HOW = (
    "fitted without anyone's ratings, so no agreement with people is claimed; falling: share of steps of known damage, "
    "on held-out pictures, that lowered the score"
)


def _rows(
    features: Hyperfeatures,
    pictures: Pictures,
    options: LadderOptions,
    judge: Scorer | None,
    cache: FeatureCache | None,
    watch: Watch | None,
) -> tuple[list[Step], Tensor, Tensor | None, dict[int, str]]:
    """Every picture and its ladders: steps, features, the judge's scores on unit scale, reasons."""
    steps: list[Step] = []
    rows: list[Tensor] = []
    scores: list[float] = []
    reasons: dict[int, str] = {}
    for place, pixels, reason in pictures.read():
        made = list(ladder(pixels, place, options)) if pixels is not None else []
        found = extract_cached(features, [image for _, image in made], cache, watch=stopping(watch)) if made else []
        broken = next((one.reason for one in found if one.features is None), reason)
        if broken is not None:
            reasons[place] = broken
        else:
            steps += [step for step, _ in made]
            rows += [one.features for one in found if one.features is not None]
            scores += _judged(judge, [image for _, image in made]) if options.prior else []
        if watch is not None:
            watch("features", place + 1, len(pictures))
    matrix = torch.stack(rows) if rows else torch.zeros(0, features.layout.size)
    return steps, matrix, _unit(scores) if judge is not None and options.prior else None, reasons


def _judged(judge: Scorer | None, images: Sequence[Tensor]) -> list[float]:
    if judge is None:
        return []
    return [float("nan") if score.value is None else score.value for score in judge.score(images)]


def _unit(scores: Sequence[float]) -> Tensor:
    """Scores on a scale of unit spread; NaN stays where the judge gave none."""
    found = torch.tensor(list(scores), dtype=torch.float64)
    known = found[found.isfinite()]
    return (found - known.mean()) / known.std().clamp_min(1e-6) if len(known) > 1 else found * float("nan")
