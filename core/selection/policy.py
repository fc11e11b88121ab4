"""Which images of a scored batch are kept, and why: threshold, top k, percentile, floor and cap together. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadInput, UncalibratedThreshold
from ..records import ScoreBatch, ScoreSpec


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for keeping images. ``None`` switches a rule off; with every rule off, each scored image is kept.

    Threshold, top k and percentile must all be passed. Then the floor brings back the best of those that failed, and
    the cap drops the worst of those that are left. An image without a score is never kept, not even by the floor.

    Attributes:
        threshold: Keep values at least this good (≥ where higher is better, ≤ where lower is). Calibrated scores only.
        top_k: Keep the best k, k ≥ 1.
        percentile: Keep the images at or above this percentile of the batch, 0 to 100: 75 keeps the best quarter,
            rounded up, at least one.
        floor: Keep at least this many, as far as there are scored images.
        cap: Keep at most this many, ≥ 1.
    """

    threshold: float | None = None
    top_k: int | None = None
    percentile: float | None = None
    floor: int = 0
    cap: int | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BadInput("a finite threshold", str(self.threshold), "Give a number, or switch the threshold off.")
        if self.top_k is not None and self.top_k < 1:
            raise BadInput("top k ≥ 1", str(self.top_k), "Raise it, or switch it off.")
        if self.percentile is not None and not 0 <= self.percentile <= 100:
            raise BadInput("a percentile from 0 to 100", str(self.percentile), "75 keeps the best quarter.")
        if self.floor < 0:
            raise BadInput("a floor ≥ 0", str(self.floor), "0 means that nothing need be kept.")
        if self.cap is not None and self.cap < max(1, self.floor):
            raise BadInput(
                f"a cap of at least {max(1, self.floor)} (floor {self.floor})",
                str(self.cap),
                "Raise it, or lower the floor.",
            )


@dataclass(frozen=True, slots=True)
class Selection:
    """What a policy did with a batch. All numbers are places in that batch, not original indices.

    Attributes:
        kept: Places that passed, in the order of the batch.
        rejected: All other places, in the order of the batch.
        why: For each place, one line for the user, such as "62.1 < threshold 70" or "rank 5 of 8, kept top 3".
        ranking: Every place from best to worst; ties keep their order, missing scores come last.
    """

    kept: tuple[int, ...]
    rejected: tuple[int, ...]
    why: tuple[str, ...]
    ranking: tuple[int, ...]

    @property
    def kept_best_first(self) -> tuple[int, ...]:
        """The kept places from best to worst."""
        kept = set(self.kept)
        return tuple(place for place in self.ranking if place in kept)

    @property
    def rejected_best_first(self) -> tuple[int, ...]:
        """The rejected places from best to worst, those without a score last."""
        kept = set(self.kept)
        return tuple(place for place in self.ranking if place not in kept)


def select(batch: ScoreBatch, policy: Policy) -> Selection:
    """Apply a policy to a batch of scores.

    Raises:
        UncalibratedThreshold: an absolute threshold on a score that has no absolute scale.
        BadInput: a threshold outside the scale of the score.
    """
    if policy.threshold is not None:
        check_threshold(batch.spec, policy.threshold)
    ranking = tuple(batch.ranking())
    scored = [place for place in ranking if batch[place].ok]
    failures = {place: _failures(batch, policy, place, rank, len(scored)) for rank, place in enumerate(scored, 1)}
    passed = [place for place in scored if not failures[place]]
    if len(passed) < policy.floor:
        # Rules may fail a better image than they pass only through ties, so the best of all scored ones are kept.
        passed = scored[: policy.floor]
    kept = set(passed if policy.cap is None else passed[: policy.cap])
    ranks = {place: rank for rank, place in enumerate(scored, 1)}
    why = tuple(
        _reason(batch, policy, place, place in kept, ranks.get(place), len(scored), failures.get(place, []))
        for place in range(len(batch))
    )
    places = range(len(batch))
    return Selection(
        kept=tuple(place for place in places if place in kept),
        rejected=tuple(place for place in places if place not in kept),
        why=why,
        ranking=ranking,
    )


def percentile_count(percentile: float, scored: int) -> int:
    """How many of ``scored`` images lie at or above a percentile: the best (100 − p) %, rounded up, at least one."""
    return min(scored, max(1, math.ceil(scored * (100 - percentile) / 100 - 1e-9)))


def numeral(value: float) -> str:
    """A score for people: enough digits to tell images apart, no more."""
    if value == 0 or 0.1 <= abs(value) < 10_000:
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return f"{value:.4g}"


def check_threshold(
    spec: ScoreSpec, threshold: float, instead: str = "Switch the threshold off and use top k or percentile"
) -> None:
    """Whether values of this spec may be held against an absolute threshold.

    Raises:
        UncalibratedThreshold: the values only rank; ``instead`` begins the remedy.
        BadInput: the threshold lies outside the scale.
    """
    if not spec.calibrated:
        raise UncalibratedThreshold(
            "a calibrated score for an absolute threshold",
            f"{spec.name}, whose values only rank images (threshold {threshold:g})",
            f"{instead}, or use a calibrated scorer such as the judge.",
        )
    if spec.scale is not None and not spec.scale[0] <= threshold <= spec.scale[1]:
        low, high = spec.scale
        raise BadInput(f"a threshold from {low:g} to {high:g}", f"{threshold:g}", f"{spec.name} scores lie in between.")


def meets(spec: ScoreSpec, value: float, threshold: float) -> bool:
    """Whether a value is at least as good as the threshold.

    Compared as they are, not as goodness: the division there could move a value onto the threshold.
    """
    return value >= threshold if spec.direction == "higher" else value <= threshold


def against_threshold(spec: ScoreSpec, value: float, threshold: float) -> str:
    """The comparison for people: "62.1 < threshold 70"."""
    higher = spec.direction == "higher"
    if meets(spec, value, threshold):
        return f"{numeral(value)} {'≥' if higher else '≤'} threshold {threshold:g}"
    return f"{_apart(value, threshold)} {'<' if higher else '>'} threshold {threshold:g}"


def _failures(batch: ScoreBatch, policy: Policy, place: int, rank: int, scored: int) -> list[str]:
    """What speaks against the image at this place, rule by rule."""
    value = batch[place].value
    found: list[str] = []
    limit = policy.threshold
    if value is not None and limit is not None and not meets(batch.spec, value, limit):
        found.append(against_threshold(batch.spec, value, limit))
    if policy.top_k is not None and rank > policy.top_k:
        found.append(f"rank {rank} of {scored}, kept top {policy.top_k}")
    if policy.percentile is not None:
        count = percentile_count(policy.percentile, scored)
        if rank > count:
            found.append(f"rank {rank} of {scored}, below percentile {policy.percentile:g} (best {count} kept)")
    return found


def _apart(value: float, limit: float) -> str:
    """The value with as many digits as it takes not to read like the limit: never "70.0 < threshold 70"."""
    text = numeral(value)
    return text if float(text) != limit else repr(value)


def _reason(
    batch: ScoreBatch,
    policy: Policy,
    place: int,
    kept: bool,
    rank: int | None,
    scored: int,
    failures: Sequence[str],
) -> str:
    score = batch[place]
    if score.value is None or rank is None:
        return f"not scored: {score.reason}"
    if not kept:
        return "; ".join(failures) or f"rank {rank} of {scored}, cap {policy.cap}"
    if failures:
        return f"rank {rank} of {scored}, kept by floor {policy.floor} although {'; '.join(failures)}"
    if policy.threshold is not None:
        return f"{against_threshold(batch.spec, score.value, policy.threshold)}, rank {rank} of {scored}"
    return f"rank {rank} of {scored}"
