"""Bootstrap samples that draw whole contents: pictures of one scene are not independent of each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from ..errors import BadInput

_CHUNK = 100


def bootstrap_places(
    count: int, groups: Sequence[Hashable] | None = None, *, resamples: int = 1000, seed: int = 0
) -> Iterator[np.ndarray]:
    """Places of each bootstrap sample: contents drawn with replacement, each with all its pictures.

    Args:
        count: Pictures.
        groups: The content of each; ``None`` takes every picture for a content of its own.
        resamples: How many samples.
        seed: Draws them; the same seed gives the same samples.

    Raises:
        BadInput: not one group per picture.
    """
    if groups is not None and len(groups) != count:
        raise BadInput(f"{count} groups, one per picture", str(len(groups)), "Name every picture's content.")
    members = _members(count, groups)
    single = all(len(places) == 1 for places in members)
    draw = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        for drawn in draw.integers(0, len(members), size=(min(_CHUNK, resamples - start), len(members))):
            yield drawn if single else np.concatenate([members[place] for place in drawn])


def _members(count: int, groups: Sequence[Hashable] | None) -> list[np.ndarray]:
    names = range(count) if groups is None else groups
    found: dict[Hashable, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return [np.array(places) for places in found.values()]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap values; samples without a value (a constant side) are left out."""
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    count: int,
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of any statistic of the places of a sample."""
    drawn = bootstrap_places(count, groups, resamples=resamples, seed=seed)
    return interval(np.array([statistic(places) for places in drawn]))
