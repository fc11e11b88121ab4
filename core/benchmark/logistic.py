"""The monotone 4-parameter logistic that is customary before PLCC and RMSE (VQEG, 2003)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

_STEEPEST = 1e-3  # of a standard deviation: any steeper is a step between two neighbouring scores


@dataclass(frozen=True, slots=True)
class Logistic:
    """f(s) = low + span / (1 + exp(-(s - middle) / width)), span and width > 0; or a straight line.

    Attributes:
        low: Where it begins, in units of the ratings.
        span: How far it rises.
        middle: The score at half height.
        width: Of the rise, in units of the scores.
        converged: Whether a logistic was found. If not, the curve is the best straight line that does not fall,
            low + span · (s - middle) / width.
    """

    low: float
    span: float
    middle: float
    width: float
    converged: bool

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Scores → what they predict of the ratings."""
        z = (np.asarray(scores, dtype=np.float64) - self.middle) / self.width
        return self.low + self.span * (special.expit(z) if self.converged else z)


def fit_logistic(scores: np.ndarray, ratings: np.ndarray) -> Logistic:
    """The least-squares logistic that rises with the scores; several starts, and a line where none converges.

    A curve that falls is never taken: it would hide that a scorer is upside down.

    Args:
        scores: [n], not all alike, higher is better.
        ratings: [n], not all alike.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    z, target = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    found = [fit for start in _starts(z, target) if (fit := _fit(z, target, start)) is not None]
    if not found:
        slope = max(float(np.mean(z * target)), 0.0)
        return Logistic(float(y.mean()), slope * float(y.std()), float(x.mean()), float(x.std()), False)
    low, span, middle, width = min(found, key=lambda fit: float(np.sum((_curve(z, *fit) - target) ** 2)))
    return Logistic(
        float(y.mean() + low * y.std()),
        float(span * y.std()),
        float(x.mean() + middle * x.std()),
        float(width * x.std()),
        True,
    )


def _curve(z: np.ndarray, low: float, span: float, middle: float, width: float) -> np.ndarray:
    return low + span * special.expit((z - middle) / width)


def _starts(z: np.ndarray, target: np.ndarray) -> list[tuple[float, float, float, float]]:
    low, span = float(target.min()), float(np.ptp(target))
    return [(low, span, middle, width) for middle, width in ((0.0, 1.0), (float(np.median(z)), 0.3), (0.0, 3.0))]


def _fit(z: np.ndarray, target: np.ndarray, start: tuple[float, ...]) -> tuple[float, float, float, float] | None:
    """One attempt from one start; ``None`` when it did not converge or ended flat."""
    bounds = ((-np.inf, 0.0, -np.inf, _STEEPEST), (np.inf, np.inf, np.inf, np.inf))
    try:
        with warnings.catch_warnings():
            # Only the curve is used, not the uncertainty of its parameters.
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            fit = optimize.curve_fit(_curve, z, target, p0=start, bounds=bounds, maxfev=2000)[0]
    except (RuntimeError, ValueError):  # no convergence; infinite residuals
        return None
    flat = np.ptp(_curve(z, *fit)) < 1e-6
    return None if flat or not np.isfinite(fit).all() else tuple(float(value) for value in fit)  # type: ignore[return-value]
