"""How far a score may be off: the size of errors on held-out pictures, widened where a picture is unlike them.

spread = s · sqrt(1 + doubt). s is a quantile of |error| / sqrt(1 + doubt) over held-out pictures (split conformal
prediction, normalised), so that about 68 % of new ratings lie within one spread, whatever the errors' distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Share of a normal distribution within one deviation.
ONE = math.erf(2.0**-0.5)
#: Spreads that hold 95 % of a normal distribution.
WIDE = 1.959964


def error_scale(errors: Tensor, doubts: Tensor) -> float:
    """s, from errors [N] and doubts [N] of held-out pictures."""
    ratios = (errors.abs() / (1.0 + doubts).sqrt()).sort().values
    place = min(len(ratios), math.ceil((len(ratios) + 1) * ONE)) - 1
    return float(ratios[place])


def spreads(scale: float, doubts: Tensor) -> Tensor:
    """One spread per picture [N]."""
    return scale * (1.0 + doubts).sqrt()


def coverage(errors: Tensor, doubts: Tensor, folds: Sequence[int], width: float = 1.0) -> float:
    """Share of held-out pictures within ``width`` spreads, the scale of each fold taken from the other folds only."""
    fold = torch.tensor(list(folds))
    inside = 0
    for name in fold.unique().tolist():
        here = fold == name
        scale = error_scale(errors[~here], doubts[~here])
        inside += int((errors[here].abs() <= width * spreads(scale, doubts[here])).sum())
    return inside / len(errors)
