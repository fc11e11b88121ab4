"""Folds of cross-validation: a content never lies on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from ..errors import BadInput


def folds_by_group(groups: Sequence[Hashable], folds: int, seed: int = 0) -> list[int]:
    """A fold number per place: whole groups, largest first, each into the fold that has least so far.

    Ties are drawn by ``seed``. There are fewer folds where there are fewer groups.

    Raises:
        BadInput: fewer than two folds or groups.
    """
    sizes = Counter(groups)
    if folds < 2 or len(sizes) < 2:
        raise BadInput("two folds and two groups at least", f"{folds}, {len(sizes)}", "Give pictures of more contents.")
    names = list(sizes)
    order = np.random.default_rng(seed).permutation(len(names))
    filled = [0] * min(folds, len(names))
    fold_of: dict[Hashable, int] = {}
    for place in sorted(order.tolist(), key=lambda place: -sizes[names[place]]):
        least = filled.index(min(filled))
        fold_of[names[place]] = least
        filled[least] += sizes[names[place]]
    return [fold_of[group] for group in groups]
