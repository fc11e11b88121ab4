"""Reading the score off a head in training: gain and offset, and agreement with people on held-back pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ..benchmark.agreement import agreement
from ..data.rated import RatedImage
from ..images import load_image
from ..methods.genziqa import GenzIQA
from ..methods.genziqa_settings import FAST, PUBLISHED, GenzIQAOptions

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..methods.genziqa_head import GenzHead

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Readout:
    """score = offset + gain · raw, of one data set."""

    gain: float = 1.0
    offset: float = 0.0


def raw_of(
    backbone: AdaptableBackbone, head: GenzHead, images: Sequence[RatedImage], timesteps: Sequence[int]
) -> list[float]:
    """The scorer's own raw values, averaged over levels.

    Raises:
        BadInput: a picture cannot be scored; training data should hold no such.
    """
    scorer = GenzIQA(backbone, head, GenzIQAOptions(timesteps=tuple(timesteps)))
    found: list[float] = []
    waiting = iter(images)
    while some := list(islice(waiting, _AT_ONCE)):
        batch = scorer.score([load_image(image.path) for image in some])
        found += [_raw(score.attributes, score.reason) for score in batch]
    return found


def _raw(attributes: Any, reason: str | None) -> float:
    return float("nan") if reason is not None else float(attributes["raw"])


def first_readout(raw: Sequence[float], images: Sequence[RatedImage]) -> Readout:
    """Mean and deviation of the ratings, in the direction in which the raw values go with them."""
    x, y = _pairs(raw, images)
    spread = float(x.std())
    if len(x) < 2 or spread == 0.0:
        return Readout()
    sign = -1.0 if float(np.mean((x - x.mean()) * (y - y.mean()))) < 0.0 else 1.0
    gain = sign * max(float(y.std()), 1.0) / spread
    return Readout(gain, float(y.mean() - gain * x.mean()))


def last_readout(raw: Sequence[float], images: Sequence[RatedImage], before: Readout) -> Readout:
    """Least squares; the one before where the raw values do not go with the ratings at all."""
    x, y = _pairs(raw, images)
    if len(x) < 2 or float(x.std()) == 0.0:
        return before
    fit = stats.linregress(x, y)
    gain = float(fit.slope)  # pyright: ignore[reportAttributeAccessIssue]
    return before if gain == 0.0 else Readout(gain, float(fit.intercept))  # pyright: ignore[reportAttributeAccessIssue]


def _pairs(raw: Sequence[float], images: Sequence[RatedImage]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(raw, dtype=float), np.asarray([image.mos for image in images])
    kept = np.isfinite(x)
    return x[kept], y[kept]


def held_back(raw: Sequence[float], images: Sequence[RatedImage], readout: Readout) -> dict[str, float]:
    """SRCC with its interval, PLCC and the like."""
    x, y = _pairs(raw, images)
    scores = readout.offset + readout.gain * x
    if len(x) < 3 or float(np.ptp(scores)) == 0.0:
        return {"srcc": 0.0, "n": len(x)}
    return agreement(scores.tolist(), y.tolist()).to_dict()


def levels_agree(backbone: AdaptableBackbone, head: GenzHead, images: Sequence[RatedImage]) -> dict[str, float]:
    """SRCC of scores at the two fast levels, and at one, with those at the eight published ones."""
    published = raw_of(backbone, head, images, PUBLISHED)
    found = {}
    for name, steps in (("two_levels", FAST), ("one_level", FAST[-1:])):
        other = raw_of(backbone, head, images, steps)
        found[f"srcc_{name}_with_published"] = float(stats.spearmanr(published, other).statistic)  # pyright: ignore
    return found
