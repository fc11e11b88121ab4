"""What each cell of a grid adds to a pooled feature: exact shares, which sum to the pooled value.

For a linear reading of pooled features every cell's part of the value follows, with nothing approximated: a mean's cell
adds x / P, a standard deviation's (x - mean)² / (P · std), a generalised mean's |x|^p / (P · m^(p - 1)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

_LOG_OFFSET = 1e-3  # of the reducer logstd


def shares(values: Tensor, reducer: str, centre: Tensor, offset: float = _LOG_OFFSET) -> Tensor:
    """Features [N, C, h, w] → what each cell adds to (pooled - centre) [N, C, h, w], in fp64 on the CPU.

    Args:
        values: The tap's values.
        reducer: As head files name it: ``mean``, ``std``, ``logstd``, ``gmean3``, ``top10``.
        centre: [C] what each pooled feature is compared with; spread evenly over the cells.
        offset: What ``logstd`` adds before the logarithm.

    Raises:
        BadInput: a reducer whose value is no sum over cells.
    """
    x = values.detach().cpu().double()  # some devices have no fp64
    middle, cells = centre.double().cpu().view(1, -1, 1, 1), x.shape[-2] * x.shape[-1]
    if reducer == "logstd":
        # A logarithm's rise from centre to value is its secant's slope times that of the deviation: exact as well.
        low = middle.exp() - offset
        part = _std(x)
        high = part.sum((-2, -1), keepdim=True)
        slope = _secant((high + offset).log() - middle, high - low, 1.0 / (low + offset))
        return slope * (part - low / cells)
    found = {"mean": _mean, "std": _std}.get(reducer)
    if found is not None:
        return found(x) - middle / cells
    for prefix, share in (("gmean", _generalised), ("top", _top)):
        number = reducer.removeprefix(prefix)
        if number != reducer and number.replace(".", "", 1).isdecimal():
            return share(x, float(number)) - middle / cells
    raise BadInput(
        "a reducer whose value is a sum over cells", reducer, "Fit a head on mean, std or generalised means."
    )


def _mean(x: Tensor) -> Tensor:
    return x / (x.shape[-2] * x.shape[-1])


def _std(x: Tensor) -> Tensor:
    squares = (x - x.mean((-2, -1), keepdim=True)).square()
    deviation = squares.mean((-2, -1), keepdim=True).sqrt()
    share = squares / (x.shape[-2] * x.shape[-1]) / deviation.clamp_min(1e-300)
    return torch.where(deviation > 0.0, share, torch.zeros_like(share))


def _generalised(x: Tensor, power: float) -> Tensor:
    size = x.abs()
    largest = size.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    ratio = (size / largest).pow(power)
    mean = ratio.mean((-2, -1), keepdim=True)
    share = largest * ratio / (x.shape[-2] * x.shape[-1]) * mean.clamp_min(1e-300).pow(1.0 / power - 1.0)
    return torch.where(mean > 0.0, share, torch.zeros_like(share))


def _top(x: Tensor, percent: float) -> Tensor:
    flat = x.flatten(2)
    count = max(1, round(percent / 100.0 * flat.shape[-1]))
    found = flat.topk(count, dim=-1)
    return torch.zeros_like(flat).scatter(-1, found.indices, found.values / count).view_as(x)


def _secant(rise: Tensor, run: Tensor, limit: Tensor) -> Tensor:
    tiny = run.abs() < 1e-12
    return torch.where(tiny, limit, rise / torch.where(tiny, torch.ones_like(run), run))
