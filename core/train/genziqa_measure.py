"""Reading the score off a head in training: gain and offset, and agreement with people on held-back pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats

from ..benchmark.agreement import agreement
from ..data.rated import RatedImage
from ..errors import BadInput
from ..methods.genziqa import GenzIQA
from ..methods.genziqa_settings import FAST, PUBLISHED, GenzIQAOptions
from .genziqa_latents import Latents, Wanted

if TYPE_CHECKING:
    from ..methods.genziqa_head import GenzHead

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Readout:
    """score = offset + gain · raw, of one data set."""

    gain: float = 1.0
    offset: float = 0.0


def raw_levels(latents: Latents, head: GenzHead, images: Sequence[RatedImage], timesteps: Sequence[int]) -> np.ndarray:
    """The scorer's own raw values [pictures, levels]; NaN for a picture that cannot be scored."""
    plain = head.with_settings(gain=1.0, offset=0.0)
    scorer = GenzIQA(latents.backbone, plain, GenzIQAOptions(timesteps=tuple(timesteps)))
    found = np.full((len(images), len(timesteps)), math.nan)
    device = latents.backbone.noise((1,), 0).device
    for places in _by_size(images, latents):
        z = torch.stack([latents.of([Wanted(images[place].path)])[0] for place in places])
        for place, score in zip(places, scorer.score_encoded(z.to(device)), strict=True):
            found[place] = score.attributes.get("levels", math.nan)
    return found


def _by_size(images: Sequence[RatedImage], latents: Latents) -> Iterator[list[int]]:
    """Places of pictures that can be scored, a few of one size at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        try:
            shape = tuple(latents.of([Wanted(image.path)])[0].shape)
        except BadInput:
            continue
        groups.setdefault(shape, []).append(place)
        if len(groups[shape]) == _AT_ONCE:
            yield groups.pop(shape)
    yield from groups.values()


def raw_of(latents: Latents, head: GenzHead, images: Sequence[RatedImage], timesteps: Sequence[int]) -> list[float]:
    """As :func:`raw_levels`, averaged over the levels [pictures]."""
    return raw_levels(latents, head, images, timesteps).mean(1).tolist()


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


def readouts_of(
    levels: np.ndarray, steps: Sequence[int], images: Sequence[RatedImage], before: Readout
) -> list[dict[str, Any]]:
    """Gain, offset, centre and spread at each setting of noise levels that a user may choose, for the head's file.

    Args:
        levels: Raw values [pictures, levels] of pictures trained on.
        steps: The levels' timesteps.
        images: The pictures.
        before: Of the head itself, where the raw values of a setting do not go with the ratings at all.
    """
    found = []
    for chosen in (PUBLISHED, FAST, FAST[-1:]):
        raw = levels[:, [steps.index(step) for step in chosen]].mean(1)
        readout = last_readout(raw.tolist(), images, before)
        found.append({"timesteps": list(chosen), **asdict(readout), **centre_and_spread(raw, readout)})
    return found


def centre_and_spread(raw: np.ndarray, readout: Readout) -> dict[str, float]:
    """Mean and standard deviation of the scores of pictures trained on."""
    scores = readout.offset + readout.gain * raw[np.isfinite(raw)]
    return {"centre": float(scores.mean()), "spread": max(1e-3, float(scores.std()))}


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


def levels_agree(latents: Latents, head: GenzHead, images: Sequence[RatedImage]) -> dict[str, float]:
    """SRCC of scores at the two fast levels, and at one, with those at the eight published ones, in one reading."""
    levels = raw_levels(latents, head, images, PUBLISHED)
    published = levels.mean(1)
    found: dict[str, float] = {"levels_pictures": float(len(levels))}
    for name, steps in (("two_levels", FAST), ("one_level", FAST[-1:])):
        other = levels[:, [PUBLISHED.index(step) for step in steps]].mean(1)
        both = np.isfinite(published) & np.isfinite(other)
        agreed = stats.spearmanr(published[both], other[both]).statistic  # pyright: ignore[reportAttributeAccessIssue]
        found[f"srcc_{name}_with_published"] = float(agreed) if np.isfinite(agreed) else 0.0
    return found
