"""Split rules: a content never lies on both sides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ..errors import BadInput


def split_by_group(groups: Sequence[Hashable], share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Places → (places kept for training, places held back), whole groups at a time.

    Groups are drawn at random until the part held back has reached ``share`` of all places.

    Raises:
        BadInput: a share outside (0, 1), or fewer than two groups.
    """
    if not 0.0 < share < 1.0:
        raise BadInput("a share between 0 and 1", str(share), "0.2 holds a fifth back.")
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise BadInput("at least two groups of pictures", str(len(names)), "Give pictures of different contents.")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = dict.fromkeys(names, 0)
    for group in groups:
        sizes[group] += 1
    held: set[Hashable] = set()
    count = 0
    for place in order[:-1]:
        if count >= share * len(groups):
            break
        held.add(names[place])
        count += sizes[names[place]]
    kept = [place for place, group in enumerate(groups) if group not in held]
    return kept, [place for place, group in enumerate(groups) if group in held]
