"""From a regressor's raw value to the score that people see: monotone, so that no ranking changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput

LinkKind = Literal["none", "logistic", "isotonic"]
#: Slope of an isotonic link where its steps are flat, as a share of its mean slope: equal scores would lose the order.
_LEAST_SLOPE = 0.02


@dataclass(frozen=True, slots=True)
class Link:
    """A monotone map onto a scale.

    Attributes:
        kind: ``none`` leaves values as they are; ``isotonic`` is flat beyond the values it was fitted on.
        numbers: logistic: the scale's ends, offset and slope; isotonic: the knots, all x before all y.
    """

    kind: LinkKind = "none"
    numbers: tuple[float, ...] = ()

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw values [N] → scores [N]."""
        if self.kind == "none":
            return raw
        if self.kind == "logistic":
            low, high, offset, slope = self.numbers
            return low + (high - low) * torch.sigmoid(offset + slope * raw)
        half = len(self.numbers) // 2
        found = np.interp(raw.double().numpy(), self.numbers[:half], self.numbers[half:])
        return torch.from_numpy(found)


def fit_link(raw: Tensor, targets: Tensor, kind: LinkKind, scale: tuple[float, float]) -> Link:
    """Least squares of the targets [N] on raw predictions [N] of pictures that were held out.

    logistic: low + (high - low) · sigmoid(a + b x), b > 0. isotonic: monotone regression, made strictly rising.

    Raises:
        BadInput: an unknown kind.
    """
    if kind == "none":
        return Link()
    x, y = raw.double().numpy(), targets.double().numpy()
    if kind == "logistic":
        return _logistic(x, y, scale)
    if kind == "isotonic":
        return _isotonic(x, y, scale)
    raise BadInput("a link out of none, logistic, isotonic", repr(kind), "The default is logistic.")


def _logistic(x: np.ndarray, y: np.ndarray, scale: tuple[float, float]) -> Link:
    from scipy import optimize, special

    low, high = scale
    middle, spread = float(x.mean()), float(x.std()) or 1.0
    z = (x - middle) / spread
    level = np.clip((y.mean() - low) / (high - low), 0.01, 0.99)

    def residual(p: np.ndarray) -> np.ndarray:
        return special.expit(p[0] + np.exp(p[1]) * z) - (y - low) / (high - low)

    offset, logarithm = optimize.least_squares(residual, [special.logit(level), 0.0]).x
    slope = float(np.exp(np.clip(logarithm, -6.0, 6.0))) / spread
    return Link("logistic", (low, high, float(offset) - slope * middle, slope))


def _isotonic(x: np.ndarray, y: np.ndarray, scale: tuple[float, float]) -> Link:
    from scipy import optimize

    order = np.argsort(x, kind="stable")
    knots, first = np.unique(x[order], return_index=True)
    fitted = optimize.isotonic_regression(np.asarray(y)[order]).x[first]
    width = max(float(np.ptp(knots)), 1e-12)
    tilt = _LEAST_SLOPE * max(float(np.ptp(fitted)), 1e-6) / width
    risen = fitted * (1.0 - _LEAST_SLOPE) + tilt * (knots - knots.mean())
    risen += fitted.mean() * _LEAST_SLOPE
    return Link("isotonic", (*knots.tolist(), *np.clip(risen, *scale).tolist()))
