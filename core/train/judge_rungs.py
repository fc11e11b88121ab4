"""What the rungs of ladders of damage teach: which of two pictures is better, and by how much one was enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ..data.ladder import Rung, margin
from ..data.ladder_scale import hidden_factor
from ..errors import BadInput

#: One group of like contents in this many is held back for measuring whether ladders are ordered right.
HELD_BACK_SHARE = 5


def check_sides(ladders: Sequence[Sequence[Rung]], share: int) -> None:
    """Ladders to learn from and ladders to measure on (one group in ``share``), or one clear error.

    Raises:
        BadInput: either side is empty.
    """
    held = sum(ladder[-1].is_held_back(share) for ladder in ladders)
    if held in (0, len(ladders)):
        groups = len({ladder[-1].group for ladder in ladders})
        got = f"{held} of {len(ladders)} ladders held back, of {groups} groups of like contents"
        remedy = "Make ladders of other contents as well."
        raise BadInput(f"ladders of enough groups: one in {share} is held back", got, remedy)


def pairs(ladders: Sequence[Sequence[Rung]], start: int) -> tuple[list[int], list[int], list[float]]:
    """Places of the better and of the worse picture of every pair within a ladder, and their margins.

    Rungs lie in a row from place ``start`` on.
    """
    better, worse, margins = [], [], []
    for ladder in ladders:
        for a, b in combinations(range(len(ladder)), 2):
            better.append(start + a)
            worse.append(start + b)
            margins.append(margin(ladder[a], ladder[b]))
        start += len(ladder)
    return better, worse, margins


def factors(rungs: Sequence[Rung]) -> list[float]:
    """Logarithm (base 2) of each rung's hidden scale factor; NaN for kinds without one."""
    found = []
    for rung in rungs:
        # The untouched picture stands for factor 1 in any ladder: its file says nothing of the kind.
        factor = 1.0 if rung.level == 0 and rung.family == "clean" else hidden_factor(rung.kind, rung.level)
        found.append(float("nan") if factor is None else float(np.log2(factor)))
    return found
