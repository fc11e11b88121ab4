"""How far a score moves when only its noise draws change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .scoring import Contestant, Item, score_items


def noise_spread(items: Sequence[Item], contestant: Contestant, *, draws: int = 4, pictures: int = 16) -> float | None:
    """Root mean variance of a picture's score over noise draws, in standard deviations of the scores over pictures.

    Args:
        items: The set; ``pictures`` of them are taken evenly.
        contestant: A scorer that draws nothing has 0.
        draws: Noise seeds, at least 2.
        pictures: How many pictures.

    Returns:
        ``None`` when fewer than three pictures got scores under every draw, or all of them the same.
    """
    if contestant.reseeded is None:
        return 0.0
    places = np.unique(np.linspace(0, len(items) - 1, min(pictures, len(items))).round().astype(int))
    taken = [items[place] for place in places]
    rows = [score_items(taken, Contestant(contestant.reseeded(seed)), 1).values for seed in range(1, draws + 1)]
    whole = [column for column in zip(*rows, strict=True) if None not in column]
    values = np.array(whole, dtype=np.float64)
    if len(values) < 3:
        return None
    between = float(values.mean(axis=1).std(ddof=1))
    return float(np.sqrt(values.var(axis=1, ddof=1).mean())) / between if between > 0.0 else None
