"""What is kept of a tap: applied at once inside the forward.

A feature reducer takes [rows, channels, h, w], an attention reducer takes fp32 logits [rows, heads, h*w, tokens]. All
compute in fp32 and none looks across rows, so that batch-mates change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from .recorder import Grid, Reducer


def full(values: Tensor, grid: Grid) -> Tensor:
    """Everything, as it is. Large: ask for it only where a map is needed."""
    return values.clone()


def mean(values: Tensor, grid: Grid) -> Tensor:
    """Features → channel means [rows, channels]."""
    return values.float().mean(dim=(-2, -1))


def mean_std(values: Tensor, grid: Grid) -> Tensor:
    """Features → channel means and standard deviations over the grid [rows, 2 * channels]."""
    flat = values.float().flatten(2)
    middle = flat.mean(-1, keepdim=True)
    return torch.cat([middle[..., 0], _deviation(flat, middle)], dim=1)


def _deviation(flat: Tensor, middle: Tensor) -> Tensor:
    """Over the last dimension; PyTorch's own ``std`` takes several times as long on a CPU."""
    return (flat - middle).square().mean(-1).sqrt()


def top_k_mean(share: float) -> Reducer:
    """Features → for each channel the mean of its largest values over the grid [rows, channels].

    Args:
        share: The share of cells that counts as largest, in (0, 1]; at least one cell is taken.
    """
    if not 0.0 < share <= 1.0:
        raise BadInput("a share in (0, 1]", str(share), "Give .1 for the largest tenth.")

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        flat = values.float().flatten(2)
        return flat.topk(max(1, round(share * flat.shape[-1])), dim=-1).values.mean(-1)

    return reduce


def std(values: Tensor, grid: Grid) -> Tensor:
    """Features → channel standard deviations over the grid [rows, channels]."""
    flat = values.float().flatten(2)
    return _deviation(flat, flat.mean(-1, keepdim=True))


def log_std(values: Tensor, grid: Grid) -> Tensor:
    """Features → logarithms of :func:`std` [rows, channels]: contrast of a feature is a ratio scale."""
    return (std(values, grid) + 1e-3).log()


def generalised_mean(power: float) -> Reducer:
    """Features → for each channel (mean over the grid of |x|^p)^(1/p) [rows, channels].

    Args:
        power: p ≥ 1; 1 is the mean of magnitudes, and the larger, the nearer to their maximum.
    """
    if not 1.0 <= power <= 16.0:
        raise BadInput("a power from 1 to 16", str(power), "3 is the usual one.")

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        flat = values.float().flatten(2).abs()
        largest = flat.amax(-1, keepdim=True).clamp_min(1e-12)
        # Divided by the largest first: powers of large features overflow.
        return largest[..., 0] * (flat / largest).pow(power).mean(-1).pow(1.0 / power)

    return reduce


def log_sum_exp(temperature: float = 1.0) -> Reducer:
    """Attention → a soft maximum over the queries [rows, heads, tokens]: log(mean(exp(T * logits))) / T.

    The mean instead of the sum takes away the offset log(queries) / T, which would make the value depend on the
    resolution (GenzIQA uses the sum with T = .14).
    """
    if not temperature > 0.0:
        raise BadInput("a temperature > 0", str(temperature), "GenzIQA uses .14.")

    def reduce(logits: Tensor, grid: Grid) -> Tensor:
        queries = torch.tensor(float(grid.h * grid.w), device=logits.device)
        return (torch.logsumexp(temperature * logits.float(), dim=2) - queries.log()) / temperature

    return reduce


def probabilities(logits: Tensor, grid: Grid) -> Tensor:
    """Attention → softmax over the tokens [rows, heads, h*w, tokens]."""
    return logits.float().softmax(dim=-1)


def token_mass(logits: Tensor, grid: Grid) -> Tensor:
    """Attention → how much each token is looked at: probabilities, mean over heads and queries [rows, tokens]."""
    return probabilities(logits, grid).mean(dim=(1, 2))


def token_maps(logits: Tensor, grid: Grid) -> Tensor:
    """Attention → one map per token, mean over heads [rows, tokens, h, w]."""
    return probabilities(logits, grid).mean(1).transpose(1, 2).unflatten(-1, (grid.h, grid.w))


def maps_of_tokens(start: int, stop: int) -> Reducer:
    """Attention → :func:`token_maps` of the tokens ``start`` to ``stop - 1`` only [rows, tokens, h, w]."""

    def reduce(logits: Tensor, grid: Grid) -> Tensor:
        kept = probabilities(logits, grid)[..., start:stop]
        return kept.mean(1).transpose(1, 2).unflatten(-1, (grid.h, grid.w))

    return reduce


def several(*reducers: Reducer) -> Reducer:
    """Two or more flat reducers on one tap: their values side by side [rows, sum of lengths]."""

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        return torch.cat([reducer(values, grid).flatten(1) for reducer in reducers], dim=1)

    return reduce


_BY_NAME: dict[str, Reducer] = {"mean": mean, "std": std, "logstd": log_std}


def by_name(name: str) -> Reducer:
    """A feature reducer that gives one value per channel, by the name that head files use.

    ``mean``, ``std``, ``logstd``, ``gmean3`` (:func:`generalised_mean` of power 3), ``top10`` (:func:`top_k_mean` of
    the largest 10 %).

    Raises:
        BadInput: no such reducer.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    for prefix, make in (("gmean", generalised_mean), ("top", lambda percent: top_k_mean(percent / 100.0))):
        number = name.removeprefix(prefix)
        if number != name and number.replace(".", "", 1).isdecimal():
            return make(float(number))
    raise BadInput("a reducer: mean, std, logstd, gmean3, top10", repr(name), "Use one of these names.")
