"""How well scores agree with people's ratings: SRCC with its interval, PLCC, KRCC, RMSE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from ..errors import BadInput

_LEAST = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of n scores with n mean opinion scores (MOS).

    Attributes:
        srcc: Spearman's rank correlation, -1 to 1.
        srcc_low: Lower end of its 95 % bootstrap interval (over pictures).
        srcc_high: Upper end.
        plcc: Pearson's correlation of the raw values, nothing fitted.
        krcc: Kendall's tau-b.
        rmse: Root mean squared error after a monotone 4-parameter logistic, in units of the MOS.
        n: Pictures.
    """

    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    krcc: float
    rmse: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """Plain types for JSON."""
        return asdict(self)


def agreement(scores: Sequence[float], mos: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Agreement:
    """Every measure at once. Scores must be turned so that higher is better.

    Args:
        scores: What the scorer said.
        mos: What people said, in the same order.
        resamples: Bootstrap samples behind the interval.
        seed: Draws them.

    Raises:
        BadInput: unequal lengths, fewer than three pictures, NaN or infinity, or one side constant (a correlation
            with a constant is not defined).
    """
    x, y = _checked(scores, "scores"), _checked(mos, "ratings")
    if len(x) != len(y):
        raise BadInput("one rating per score", f"{len(x)} scores, {len(y)} ratings", "Leave unscored pictures out.")
    low, high = _interval(x, y, resamples, seed)
    return Agreement(
        srcc=_value(stats.spearmanr(x, y)),
        srcc_low=low,
        srcc_high=high,
        plcc=_value(stats.pearsonr(x, y)),
        krcc=_value(stats.kendalltau(x, y)),
        rmse=logistic_rmse(x, y),
        n=len(x),
    )


def _value(result: Any) -> float:
    return float(result.statistic)


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


def _interval(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the SRCC; samples that came out constant are left out."""
    draw = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for start in range(0, resamples, 100):
        rows = draw.integers(0, len(x), size=(min(100, resamples - start), len(x)))
        found.append(_rowwise_correlation(stats.rankdata(x[rows], axis=1), stats.rankdata(y[rows], axis=1)))
    values = np.concatenate(found)
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return float(low), float(high)


def _rowwise_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=scale > 0)


def logistic_rmse(x: np.ndarray, y: np.ndarray) -> float:
    """RMSE of y around (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2, fitted by least squares (VQEG, 2003)."""
    z = (x - x.mean()) / x.std()
    target = (y - y.mean()) / y.std()

    def residual(beta: np.ndarray) -> np.ndarray:
        slope = abs(beta[3]) + 1e-6
        return beta[1] + (beta[0] - beta[1]) * special.expit((z - beta[2]) / slope) - target

    start = np.array([target.max(), target.min(), 0.0, 1.0])
    fit = optimize.least_squares(residual, start)
    return float(np.sqrt(np.mean(fit.fun**2)) * y.std())
