"""The cosine schedule of a pixel-space restorer: continuous levels to train on, a few of them to restore with.

alpha_bar(t) = cos²((t + s) / (1 + s) · π / 2) / cos²(s / (1 + s) · π / 2), s = .008, t from 0 to 1, each beta at most
.999 (Nichol and Dhariwal, 2021, arXiv 2102.09672, eq. 17). A state is x_t = signal · x0 + noise · eps with signal =
sqrt(alpha_bar) and noise = sqrt(1 - alpha_bar).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

#: Steps of the schedule in training, and at inference, as published.
TRAINING_STEPS, PUBLISHED_STEPS = 2000, 50
#: Which of the published steps give d0, d1 and d2 [inferred]: noise of about .04, .20 and .35.
KEPT = (0, 5, 10)
#: The kept ones and the first.
FEWEST = len(KEPT) + 1
_OFFSET, _HIGHEST_BETA = 0.008, 0.999


def alpha_bars(steps: int) -> np.ndarray:
    """alpha_bar after each of ``steps`` equal steps from t = 0 to 1, falling, float64 [steps]."""
    times = np.arange(steps + 1, dtype=np.float64) / steps
    shares = np.cos((times + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
    betas = np.minimum(1.0 - shares[1:] / shares[:-1], _HIGHEST_BETA)
    return np.cumprod(1.0 - betas)


@dataclass(frozen=True, slots=True)
class Level:
    """One step's level: ``signal``² + ``noise``² = 1, and which of 0, 1, 2 (d0, d1, d2) it gives, or ``None``."""

    signal: float
    noise: float
    kept: int | None


def ddim(
    x: Tensor, x0: Tensor, level: Level, after: Level | None, eta: float = 0.0, fresh: Tensor | None = None
) -> Tensor:
    """One step down: the state at ``level`` and its clean estimate → the state at ``after``; ``None``: the estimate.

    Args:
        x: [N, 3, H, W].
        x0: Same shape. The noise that goes on is what it leaves of ``x``.
        level: Of ``x``.
        after: The next level.
        eta: 0: DDIM, nothing is drawn. 1: the DDPM posterior, ancestral sampling as published.
        fresh: Standard normal of a shape that fits; needed above 0.
    """
    if after is None:
        return x0
    eps = (x - level.signal * x0) / level.noise
    ratio = level.signal / after.signal
    drawn = eta * after.noise / level.noise * max(0.0, 1.0 - ratio**2) ** 0.5
    kept = max(0.0, after.noise**2 - drawn**2) ** 0.5
    state = after.signal * x0 + kept * eps
    return state if fresh is None else state + drawn * fresh


def draw_signals(
    count: int, generator: torch.Generator, steps: int = TRAINING_STEPS, highest_noise: float = 1.0
) -> Tensor:
    """Continuous levels to train on: sqrt(alpha_bar) float32 [count], uniform within a step drawn uniformly.

    Args:
        count: How many.
        generator: Draws them.
        steps: Of the schedule.
        highest_noise: Only the steps up to this sqrt(1 - alpha_bar); at least one.
    """
    shares = alpha_bars(steps)
    last = max(1, int((np.sqrt(1.0 - shares) <= highest_noise).sum()))
    edges = torch.from_numpy(np.sqrt(np.concatenate([[1.0], shares])))
    step = torch.randint(last, (count,), generator=generator)
    within = torch.rand(count, generator=generator, dtype=torch.float64)
    return (edges[step + 1] + within * (edges[step] - edges[step + 1])).float()


def inference_levels(steps: int) -> tuple[Level, ...]:
    """The levels to restore with, highest noise first.

    The levels are those of the published 50 steps. Fewer steps leave out others than the kept ones, so that d0, d1 and
    d2 lie at the same noise levels however many steps there are; those above the kept ones are spread evenly.

    Raises:
        BadInput: fewer steps than 4, or more than 50.
    """
    if not FEWEST <= steps <= PUBLISHED_STEPS:
        raise BadInput(f"{FEWEST} to {PUBLISHED_STEPS} steps", str(steps), "Published: 50. A narrow restorer: 4 to 10.")
    above = list(range(PUBLISHED_STEPS - 1, KEPT[-1], -1))
    between = [place for place in range(KEPT[-1], 0, -1) if place not in KEPT]
    count = min(steps - len(KEPT), len(above))
    chosen = {above[round(at * (len(above) - 1) / max(1, count - 1))] for at in range(count)}
    places = sorted(chosen.union(KEPT, between[: steps - len(KEPT) - count]), reverse=True)
    shares = alpha_bars(PUBLISHED_STEPS)
    return tuple(
        Level(
            float(np.sqrt(shares[place])),
            float(np.sqrt(1.0 - shares[place])),
            KEPT.index(place) if place in KEPT else None,
        )
        for place in places
    )
