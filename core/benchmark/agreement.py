"""How well scores agree with people's ratings: SRCC, PLCC, KRCC with their intervals, and RMSE."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ..errors import BadInput
from .bootstrap import bootstrap_places, interval
from .logistic import fit_logistic

_LEAST = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of n scores with n mean opinion scores (MOS). Intervals are 95 % bootstrap intervals over contents.

    Attributes:
        srcc: Spearman's rank correlation, -1 to 1.
        srcc_low: Lower end of its interval.
        srcc_high: Upper end.
        plcc: Pearson's correlation of the raw values, nothing fitted.
        krcc: Kendall's tau-b.
        rmse: Root mean squared error after a rising 4-parameter logistic, in units of the MOS.
        n: Pictures.
        plcc_low: Lower end of the raw PLCC's interval.
        plcc_high: Upper end.
        plcc_fitted: Pearson's correlation after that logistic; flat curves give 0.
        krcc_low: Lower end of the KRCC's interval.
        krcc_high: Upper end.
        converged: Whether a logistic was found; if not, RMSE and the fitted PLCC are those of a straight line.
        contents: Groups that the intervals draw.
    """

    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    krcc: float
    rmse: float
    n: int
    plcc_low: float
    plcc_high: float
    plcc_fitted: float
    krcc_low: float
    krcc_high: float
    converged: bool
    contents: int

    def to_dict(self) -> dict[str, float]:
        """Plain types for JSON."""
        return asdict(self)


def agreement(
    scores: Sequence[float],
    mos: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Every measure at once. Scores must be turned so that higher is better.

    Args:
        scores: What the scorer said.
        mos: What people said, in the same order.
        groups: The content of each picture; ``None`` takes every picture for a content of its own.
        resamples: Bootstrap samples behind the intervals.
        seed: Draws them.

    Raises:
        BadInput: unequal lengths, fewer than three pictures, NaN or infinity, or one side constant (a correlation
            with a constant is not defined).
    """
    x, y = paired(scores, mos)
    found = _intervals(x, y, bootstrap_places(len(x), groups, resamples=resamples, seed=seed))
    curve = fit_logistic(x, y)
    fitted = curve(x)
    flat = np.ptp(fitted) <= 1e-9 * np.ptp(y)
    return Agreement(
        srcc=spearman(x, y),
        plcc=pearson(x, y),
        krcc=kendall(x, y),
        rmse=float(np.sqrt(np.mean((fitted - y) ** 2))),
        n=len(x),
        plcc_fitted=0.0 if flat else pearson(fitted, y),
        converged=curve.converged,
        contents=len(x) if groups is None else len(set(groups)),
        **found,
    )


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation; NaN when a side is constant."""
    return pearson(stats.rankdata(x), stats.rankdata(y))


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; NaN when a side is constant."""
    a, b = x - x.mean(), y - y.mean()
    scale = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return float(np.dot(a, b)) / scale if scale > 0.0 else float("nan")


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b; NaN when a side is constant."""
    result: Any = stats.kendalltau(x, y)
    return float(result.statistic)


def paired(scores: Sequence[float], mos: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Both sides as arrays, fit for a correlation.

    Raises:
        BadInput: as :func:`agreement`.
    """
    x, y = _checked(scores, "scores"), _checked(mos, "ratings")
    if len(x) != len(y):
        raise BadInput("one rating per score", f"{len(x)} scores, {len(y)} ratings", "Leave unscored pictures out.")
    return x, y


def _checked(values: Sequence[float], what: str) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) < _LEAST:
        raise BadInput(f"at least {_LEAST} {what} in a row", f"shape {list(found.shape)}", "Use a larger set.")
    if not np.isfinite(found).all():
        raise BadInput(f"finite {what}", "NaN or infinity", "Leave pictures without a score out.")
    if np.ptp(found) == 0.0:
        raise BadInput(
            f"{what} that differ", f"{len(found)} times {found[0]:g}", "A correlation with a constant has no value."
        )
    return found


def _intervals(x: np.ndarray, y: np.ndarray, samples: Any) -> dict[str, float]:
    measures = {"srcc": spearman, "plcc": pearson, "krcc": kendall}
    drawn = [[measure(x[places], y[places]) for measure in measures.values()] for places in samples]
    ends = [interval(values) for values in np.array(drawn).T]
    return {
        f"{name}_{end}": value
        for name, pair in zip(measures, ends, strict=True)
        for end, value in zip(("low", "high"), pair, strict=True)
    }
