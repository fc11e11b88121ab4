"""Whether one scorer agrees with people better than another, on the same pictures.

Two answers: a paired bootstrap of the difference of SRCC that draws whole contents, and Williams' t, the classic test
of two correlations that share a variable (Williams 1959, as recommended by Steiger 1980), here on ranks. The classic
test takes pictures as independent: where contents repeat, believe the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from .agreement import paired, spearman
from .bootstrap import bootstrap_places, interval

#: Said under every table of p values.
NOTE = (
    "p: two-sided, from the paired bootstrap over contents; p (Holm): adjusted for all comparisons of this table by "
    "Holm's method, so that all of them together are wrong in at most 5 % of such tables; p (Williams): the classic "
    "test of two dependent correlations, on ranks, which takes pictures as independent; not adjusted."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scorer against another on the n pictures that both scored.

    Attributes:
        difference: SRCC of the first less SRCC of the second.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        p: Two-sided bootstrap p value.
        p_williams: Two-sided p value of Williams' t on ranks; 1 where both order the pictures alike.
        n: Pictures that both scored.
    """

    difference: float
    low: float
    high: float
    p: float
    p_williams: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """Plain types for JSON."""
        return asdict(self)


def compare(
    first: Sequence[float],
    second: Sequence[float],
    mos: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Both scorers' scores, higher is better, of the same pictures in the same order.

    Raises:
        BadInput: unequal lengths, too few pictures, NaN, or a side that is constant.
    """
    a, y = paired(first, mos)
    b, _ = paired(second, mos)
    drawn = [
        spearman(a[places], y[places]) - spearman(b[places], y[places])
        for places in bootstrap_places(len(y), groups, resamples=resamples, seed=seed)
    ]
    values = np.array(drawn)
    values = values[np.isfinite(values)]
    low, high = interval(values)
    ra, rb, rab = spearman(a, y), spearman(b, y), spearman(a, b)
    return Comparison(ra - rb, low, high, two_sided(values), williams(ra, rb, rab, len(y)), len(y))


def two_sided(values: np.ndarray) -> float:
    """How often the difference lies on either side of 0, twice the rarer; never 0, since samples are finite."""
    below, above = int((values <= 0).sum()), int((values >= 0).sum())
    return min(1.0, 2.0 * (min(below, above) + 1) / (len(values) + 1))


def williams(first: float, second: float, between: float, n: int) -> float:
    """Two-sided p value of Williams' t (1959) for two correlations with one common variable, n > 3.

    Args:
        first: Correlation of the first scorer with the ratings.
        second: Correlation of the second.
        between: Correlation of both scorers.
        n: Pictures.
    """
    if n <= 3 or first == second:
        return 1.0
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    below = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - between) ** 3
    if below <= 0.0:
        return 0.0
    t = (first - second) * math.sqrt((n - 1) * (1 + between) / below)
    return float(2 * stats.t.sf(abs(t), n - 3))


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down method, in the order given."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found
