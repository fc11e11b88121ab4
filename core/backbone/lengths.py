"""Conditions of several lengths in one batch: each length is computed by itself, so that batch-mates change nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .contracts import Conditioning


def together(rows: Sequence[Tensor]) -> Tensor:
    """Tokens [T, …] of several lengths → one tensor [rows, longest T, …]; shorter ones are repeated to that length."""
    longest = max(len(row) for row in rows)
    return torch.stack([row[[place % len(row) for place in range(longest)]] for row in rows])


def same_length(conditioning: Conditioning) -> list[list[int]]:
    """Rows grouped by token count, in the order of first appearance."""
    groups: dict[int, list[int]] = {}
    for row in range(conditioning.tokens.shape[0]):
        groups.setdefault(_length(conditioning, row), []).append(row)
    return list(groups.values())


def _length(conditioning: Conditioning, row: int) -> int:
    return conditioning.lengths[row] if conditioning.lengths else conditioning.tokens.shape[1]


def cut(conditioning: Conditioning) -> Conditioning:
    """The rows (all of one length) without the repetition that made them as long as others."""
    length = _length(conditioning, 0)
    if length == conditioning.tokens.shape[1]:
        return conditioning
    by_token = conditioning.tokens.shape[1]
    return Conditioning(
        conditioning.tokens[:, :length],
        conditioning.pooled,
        conditioning.prompts,
        extra=conditioning.extra,
        row_extra={
            name: value[:, :length] if value.shape[1:2] == (by_token,) else value
            for name, value in conditioning.row_extra.items()
        },
    )
