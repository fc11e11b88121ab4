"""Several scorers as one: a weighted mean on the specs' fixed scales, never on the batch's.

Standard library only. An image's blended score therefore depends on that image alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import BadInput
from ..records import Score, ScoreBatch, ScoreSpec
from .contract import Images, Scorer, Watch

_PERCENT = (0.0, 100.0)
#: Watch steps that each part of a :class:`Blend` is worth, whatever its own count is.
_STEPS_A_PART = 1000


def blend(batches: Sequence[ScoreBatch], weights: Sequence[float] | None = None) -> ScoreBatch:
    """Blend scores of the same images by different scorers.

    When every part is calibrated 0–100 on the same ratings, the blend is the weighted mean on that scale and stays
    calibrated. Otherwise each value is first turned by its own spec, ``(value - centre) / spread`` with the sign that
    makes higher better, and the weighted mean of these is uncalibrated (centre 0, spread 1). A part of weight 0 is
    left out. An image that misses one part gets that part's reason.

    Args:
        batches: One batch per part, with the same images in the same order.
        weights: One finite number ≥ 0 per part, not all 0; equal weights when left out.

    Raises:
        BadInput: no parts, batches of different images, or weights that do not fit.
    """
    shares = _shares(len(batches), weights)
    _check_same_images(batches)
    used = [(batch, share) for batch, share in zip(batches, shares, strict=True) if share > 0.0]
    specs = [batch.spec for batch, _ in used]
    shares = [share for _, share in used]
    spec = blended_spec(specs, shares)
    rows = zip(*(batch.scores for batch, _ in used), strict=True)
    return ScoreBatch(spec, tuple(_one(parts, specs, shares, spec) for parts in rows))


def blended_spec(specs: Sequence[ScoreSpec], weights: Sequence[float] | None = None) -> ScoreSpec:
    """What the numbers of such a blend mean; see :func:`blend`.

    The spread of a calibrated blend is the weighted mean of the parts' spreads, which is what it is when the parts
    agree fully, and otherwise an upper bound; an uncalibrated one's spread of 1 is so too.
    """
    shares = _shares(len(specs), weights)
    used = [(spec, share) for spec, share in zip(specs, shares, strict=True) if share > 0.0]
    first = used[0][0]
    calibrated = all(_percent(spec) and spec.calibrated_on == first.calibrated_on for spec, _ in used)
    backbones = {spec.backbone for spec, _ in used if spec.backbone is not None}
    return ScoreSpec(
        name="blend",
        scale=_PERCENT if calibrated else None,
        calibrated_on=first.calibrated_on if calibrated else None,
        centre=_mean([spec.centre for spec, _ in used], [s for _, s in used]) if calibrated else 0.0,
        spread=_mean([spec.spread for spec, _ in used], [s for _, s in used]) if calibrated else 1.0,
        needs=tuple(dict.fromkeys(need for spec, _ in used for need in spec.needs)),
        size_policy=_by_part([(spec.name, spec.size_policy) for spec, _ in used]),
        blind_to=_by_part([(spec.name, spec.blind_to) for spec, _ in used]),
        backbone=backbones.pop() if len(backbones) == 1 else None,
        settings={"parts": [{"weight": share, "spec": spec.to_dict()} for spec, share in used]},
    )


class Blend:
    """Several scorers, run one after another and blended; a :class:`~.contract.Scorer` itself.

    Args:
        scorers: One or more configured scorers.
        weights: As in :func:`blend`.

    Raises:
        BadInput: no scorers, or weights that do not fit.
    """

    def __init__(self, scorers: Sequence[Scorer], weights: Sequence[float] | None = None) -> None:
        self._shares = _shares(len(scorers), weights)
        self._used = [(scorer, share) for scorer, share in zip(scorers, self._shares, strict=True) if share > 0.0]

    @property
    def spec(self) -> ScoreSpec:
        """What the blended numbers mean."""
        return blended_spec([scorer.spec for scorer, _ in self._used], [share for _, share in self._used])

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image with every part; ``watch`` counts thousandths of a part."""
        batches = [
            scorer.score(images, prompts, watch=_part_watch(watch, place, len(self._used)))
            for place, (scorer, _) in enumerate(self._used)
        ]
        return blend(batches, [share for _, share in self._used])


def _part_watch(watch: Watch | None, place: int, parts: int) -> Watch | None:
    if watch is None:
        return None

    def inner(done: int, total: int) -> None:
        watch(place * _STEPS_A_PART + (_STEPS_A_PART * done) // max(total, 1), parts * _STEPS_A_PART)

    return inner


def _shares(parts: int, weights: Sequence[float] | None) -> list[float]:
    """Weights that sum to 1."""
    if parts == 0:
        raise BadInput("at least one part to blend", "none", "Connect one or more scorers.")
    given = [1.0] * parts if weights is None else [float(weight) for weight in weights]
    if len(given) != parts:
        raise BadInput(f"{parts} weights, one per part", str(len(given)), "Give each scorer one weight.")
    if not all(math.isfinite(weight) and weight >= 0.0 for weight in given) or sum(given) <= 0.0:
        raise BadInput("finite weights ≥ 0, not all of them 0", str(given), "Use 1 for every part to weigh them alike.")
    return [weight / math.fsum(given) for weight in given]


def _check_same_images(batches: Sequence[ScoreBatch]) -> None:
    indices = [[score.index for score in batch] for batch in batches]
    for found in indices[1:]:
        if found != indices[0]:
            raise BadInput(
                "batches that score the same images in the same order",
                f"image indices {_short(indices[0])} and {_short(found)}",
                "Score the same batch with every scorer, and blend before anything is filtered.",
            )


def _short(indices: list[int]) -> str:
    return str(indices) if len(indices) <= 8 else f"{len(indices)} of them, {str(indices[:8])[:-1]}, …]"


def _one(parts: Sequence[Score], specs: Sequence[ScoreSpec], shares: Sequence[float], spec: ScoreSpec) -> Score:
    seed = next((part.seed for part in parts if part.seed is not None), None)
    attributes = _attributes(parts, specs, shares)
    values = [part.value for part in parts]
    missing = [f"{s.name}: {part.reason}" for s, part in zip(specs, parts, strict=True) if part.value is None]
    if missing:
        return Score(None, parts[0].index, reason="; ".join(missing), seed=seed, attributes=attributes)
    found = [value for value in values if value is not None]
    if not spec.calibrated:
        found = [s.goodness(value) for s, value in zip(specs, found, strict=True)]
    return Score.of(_mean(found, shares), parts[0].index, seed=seed, attributes=attributes)


def _attributes(parts: Sequence[Score], specs: Sequence[ScoreSpec], shares: Sequence[float]) -> dict[str, Any]:
    """What all parts agree on (an image's path), their warnings together, and each part's value."""
    first = parts[0].attributes
    common = {key: first[key] for key in first if all(p.attributes.get(key) == first[key] for p in parts[1:])}
    warnings = [
        f"{spec.name}: {warning}"
        for spec, part in zip(specs, parts, strict=True)
        for warning in part.attributes.get("warnings", ())
    ]
    table = [
        {"scorer": spec.name, "weight": share, "value": part.value}
        for spec, share, part in zip(specs, shares, parts, strict=True)
    ]
    rest = {key: value for key, value in common.items() if key != "warnings"}
    return {**rest, "parts": table, **({"warnings": warnings} if warnings else {})}


def _mean(values: Sequence[float], shares: Sequence[float]) -> float:
    return math.fsum(value * share for value, share in zip(values, shares, strict=True))


def _percent(spec: ScoreSpec) -> bool:
    return spec.calibrated and spec.scale == _PERCENT and spec.direction == "higher"


def _by_part(parts: Sequence[tuple[str, str]]) -> str:
    texts = {text for _, text in parts}
    if len(texts) == 1:
        return texts.pop()
    return "; ".join(dict.fromkeys(f"{name}: {text.rstrip('. ')}" for name, text in parts if text))
