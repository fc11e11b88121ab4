"""Reducers that count the cells of a grid by how much of each lies in a region: pooled features of a part of a picture.

With a weight of 1 everywhere they are those of ``reducers.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn import functional as F

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from .recorder import Grid, Reducer

#: Values [rows, channels, cells] and weights [cells] ≥ 0, not all 0 → [rows, channels].
_Pooling: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
_LOG_OFFSET = 1e-3  # as the reducer logstd


def by_name_within(name: str, weight: Tensor) -> Reducer:
    """A feature reducer by the name that head files use, over the cells of a region.

    Args:
        name: As :func:`~.reducers.by_name` takes it.
        weight: [1, 1, H, W] from 0 to 1, how much each pixel counts, for all rows; a cell's is its area's mean.

    Raises:
        BadInput: no such reducer.
    """
    pooling = _pooling(name)

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        cells = F.adaptive_avg_pool2d(weight.to(values.device, torch.float32), (grid.h, grid.w)).flatten()
        return pooling(values.float().flatten(2), cells)

    return reduce


def _pooling(name: str) -> _Pooling:
    if name in _BY_NAME:
        return _BY_NAME[name]
    for prefix, make in (("gmean", _generalised), ("top", _top)):
        number = name.removeprefix(prefix)
        if number != name and number.replace(".", "", 1).isdecimal():
            return make(float(number))
    raise BadInput("a reducer: mean, std, logstd, gmean3, top10", repr(name), "Use one of these names.")


def _mean(values: Tensor, cells: Tensor) -> Tensor:
    return (values * cells).sum(-1) / cells.sum()


def _std(values: Tensor, cells: Tensor) -> Tensor:
    return _mean((values - _mean(values, cells)[..., None]).square(), cells).sqrt()


def _log_std(values: Tensor, cells: Tensor) -> Tensor:
    return (_std(values, cells) + _LOG_OFFSET).log()


def _generalised(power: float) -> _Pooling:
    def pool(values: Tensor, cells: Tensor) -> Tensor:
        size = values.abs() * (cells > 0)
        largest = size.amax(-1, keepdim=True).clamp_min(1e-12)
        return largest[..., 0] * _mean((size / largest).pow(power), cells).pow(1.0 / power)

    return pool


def _top(percent: float) -> _Pooling:
    def pool(values: Tensor, cells: Tensor) -> Tensor:
        found = values.masked_fill(cells <= 0, -torch.inf).sort(dim=-1, descending=True)
        held = cells.expand_as(values).gather(-1, found.indices)
        # Down to this much weight in all: a whole number of cells, as without a region, and the last one in part.
        wanted = max(1.0, round(percent / 100.0 * float(cells.sum())))
        before = held.cumsum(-1) - held
        taken = torch.minimum(held, (wanted - before).clamp_min(0.0))
        kept = torch.where(taken > 0, found.values, torch.zeros_like(found.values))
        return (kept * taken).sum(-1) / taken.sum(-1)

    return pool


_BY_NAME: dict[str, _Pooling] = {"mean": _mean, "std": _std, "logstd": _log_std}
