"""A head from rated pictures: features, fit, and what cross-validation says of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..benchmark.agreement import Agreement, agreement
from ..errors import BadInput
from ..heads.fit import LEAST, FitOptions, FitReport, fit_head
from ..heads.head import Head, HeadMeta
from ..methods.feature_cache import FeatureCache, extract_cached
from ..methods.lgdm import NAME
from .curve import CurvePoint, learning_curve
from .pictures import Pictures

if TYPE_CHECKING:
    from ..methods.hyperfeatures import Hyperfeatures

#: Called with (what is done, steps done, steps in all); may raise to stop. A stopped fit goes on from the cache.
Watch = Callable[[str, int, int], None]
_log = logging.getLogger(__name__)
#: Pictures whose pixels are held at a time.
_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of the pictures that have any.

    Attributes:
        features: [N, D].
        places: [N] their places among the pictures.
        reasons: By place, why the others have none.
    """

    features: Tensor
    places: tuple[int, ...]
    reasons: dict[int, str]


@dataclass(frozen=True, slots=True)
class RatedFit:
    """What came out.

    Attributes:
        head: Fitted to all pictures.
        validation: Agreement of the held-out scores with the ratings.
        report: The cross-validation itself.
        curve: Agreement by number of pictures; empty when it was not asked for.
        left_out: Reasons by place, of pictures that have no features.
    """

    head: Head
    validation: Agreement
    report: FitReport
    curve: tuple[CurvePoint, ...] = ()
    left_out: dict[int, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "head": dict(self.head.meta.validation),
            "chosen": dict(self.report.chosen),
            "curve": [point.to_dict() for point in self.curve],
            "left_out": {str(place): reason for place, reason in self.left_out.items()},
        }


def rows_of(
    features: Hyperfeatures, pictures: Pictures, cache: FeatureCache | None, watch: Watch | None = None
) -> Rows:
    """Features of every picture, a few at a time; resumes from the cache."""
    found: list[Tensor] = []
    places: list[int] = []
    reasons: dict[int, str] = {}
    group: list[tuple[int, Tensor]] = []

    def flush() -> None:
        made = extract_cached(features, [pixels for _, pixels in group], cache, watch=stopping(watch)) if group else []
        for (place, _), one in zip(group, made, strict=True):
            if one.features is None:
                reasons[place] = one.reason or "no features"
            else:
                found.append(one.features)
                places.append(place)
        group.clear()
        if watch is not None:
            watch("features", len(found) + len(reasons), len(pictures))

    for place, pixels, reason in pictures.read():
        if pixels is None:
            reasons[place] = reason or "unreadable"
        else:
            group.append((place, pixels))
        if len(group) >= _TOGETHER:
            flush()
    flush()
    matrix = torch.stack(found) if found else torch.zeros(0, features.layout.size)
    return Rows(matrix, tuple(places), reasons)


def stopping(watch: Watch | None) -> Callable[[int, int], None] | None:
    """Lets a watch stop the run between forwards, without counting them."""
    return None if watch is None else lambda done, total: watch("forward", done, total)


def meta_of(features: Hyperfeatures, pictures: Pictures, calibrated_on: str | None) -> HeadMeta:
    """What is known of a head before it is fitted."""
    backbone = features.backbone
    return HeadMeta(
        method=NAME,
        kind=features.options.kind,
        family=backbone.family.name,
        fingerprint=backbone.fingerprint.to_text(),
        sigmas=features.sigmas,
        prompt=features.options.prompt,
        size_policy=features.options.policy(backbone.family),
        training_set=pictures.name,
        pictures=0,
        calibrated_on=calibrated_on,
        scale=None if calibrated_on is None else (0.0, 100.0),
        settings=features.settings(),
        identity=dict(backbone.identity),
    )


def fit_rated(
    features: Hyperfeatures,
    pictures: Pictures,
    *,
    calibrated_on: str = "your ratings",
    options: FitOptions | None = None,
    cache: FeatureCache | None = None,
    curve: bool = True,
    watch: Watch | None = None,
) -> RatedFit:
    """Rated pictures → a head, its cross-validated agreement with the ratings, and a learning curve.

    Args:
        features: Which features, of which model.
        pictures: With ratings.
        calibrated_on: Whose ratings these are, shown beside every score.
        options: Of the fit.
        cache: Where features are kept.
        curve: Whether to measure how agreement grows with the number of pictures.
        watch: Told of the work; may raise to stop.

    Raises:
        BadInput: no ratings, too few pictures with features, ratings all alike or of one group.
    """
    if pictures.ratings is None:
        raise BadInput("ratings", "none", "Give a rating per picture, or fit without ratings.")
    options = options or FitOptions()
    rows = rows_of(features, pictures, cache, watch)
    if len(rows.places) < LEAST:
        first = next(iter(rows.reasons.values()), "no more were given")
        raise BadInput(f"at least {LEAST} pictures with features", f"{len(rows.places)} ({first})", "Rate more.")
    ratings = torch.tensor([pictures.ratings[place] for place in rows.places], dtype=torch.float64)
    groups = [pictures.groups[place] for place in rows.places]
    meta = meta_of(features, pictures, calibrated_on)
    fitted = fit_head(rows.features, ratings, groups, features.layout, meta, options)
    found = agreement(fitted.report.held_out.tolist(), ratings.tolist())
    told = {
        **found.to_dict(),
        "how": f"{len(set(fitted.report.fold))}-fold cross-validation by content, on {pictures.name} itself",
        "within_one_spread": fitted.report.within_one,
        "within_1.96_spreads": fitted.report.within_wide,
    }
    head = replace(fitted.head, meta=replace(fitted.head.meta, validation=told))
    points = learning_curve(rows.features, ratings, groups, features.layout, options, watch) if curve else ()
    return RatedFit(head, found, fitted.report, points, rows.reasons)
