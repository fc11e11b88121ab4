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
    return torch.cat([flat.mean(-1), flat.std(-1, correction=0)], dim=1)


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


def several(*reducers: Reducer) -> Reducer:
    """Two or more flat reducers on one tap: their values side by side [rows, sum of lengths]."""

    def reduce(values: Tensor, grid: Grid) -> Tensor:
        return torch.cat([reducer(values, grid).flatten(1) for reducer in reducers], dim=1)

    return reduce
