"""What distorts pooled features of diffusion models, taken away before pooling.

Stable Diffusion's features carry a position pattern that is the same for every picture, and single cells of very high
norm that say nothing of what is there (arXiv 2504.07008). Both options compute in fp32 and look at one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from .recorder import Grid, Reducer


def without_outliers(reducer: Reducer, limit: float) -> Reducer:
    """Cells whose norm over the channels exceeds ``limit`` times the grid's median are scaled down to it, then reduced.

    Args:
        reducer: A feature reducer.
        limit: Above 1.
    """
    if not limit > 1.0:
        raise BadInput("a limit above 1", str(limit), "3 leaves ordinary cells alone.")

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        values = values.float()
        norm = values.square().sum(1, keepdim=True).sqrt()
        most = limit * norm.flatten(2).median(-1).values.view(-1, 1, 1, 1)
        return reducer(values * torch.where(norm > most, most / norm.clamp_min(1e-12), torch.ones_like(norm)), grid)

    return reduce


def without_position(reducer: Reducer, pattern: Callable[[], Tensor | None]) -> Reducer:
    """A pattern [channels, h, w] taken from every row, then reduced; ``None`` takes nothing.

    Args:
        reducer: A feature reducer.
        pattern: Gives the pattern that belongs to the forward which is running.
    """

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        found = pattern()
        return reducer(values if found is None else values.float() - found.to(values.device), grid)

    return reduce
