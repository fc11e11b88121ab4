"""DiffV2IQA's attentions: between channels (TAB), and between places of a difference (RTAB); and its scores of places.

After the facts of "Diffusion Model Based Visual Compensation Guidance and Visual Difference Analysis for NR-IQA"
(Wang et al., 2024, arXiv 2402.14401), reimplemented, not by its authors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Under a sum of weights, so that no picture divides by 0.
_LEAST = 1e-6


class TransposedAttention(nn.Module):
    """TAB: every channel looks at every channel; what a channel says of itself are its places.

    x + softmax(Q Kᵀ / √places) V, with Q, K, V linear maps of the places.

    Args:
        places: Length of a channel.
        ops: A namespace with ``Linear``.
    """

    def __init__(self, places: int, ops: Any = nn) -> None:
        super().__init__()
        self.q, self.k, self.v = (ops.Linear(places, places) for _ in range(3))
        self.scale = places**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, places] → the same shape."""
        # One head. The matrix of channels by channels (published: 6,912² a row) is never held where it need not be.
        q, k, v = (one(x)[:, None] for one in (self.q, self.k, self.v))
        return x + F.scaled_dot_product_attention(q, k, v, scale=self.scale)[:, 0]


class ResidualTransposedAttention(nn.Module):
    """RTAB: three differences of one vector become query, key and value of an attention between ``places``.

    softmax(q kᵀ / √features) v + Linear(f), with q, k, v linear maps of |f - f0|, |f - f1|, |f - f2|.

    Args:
        features: Length of f (published: 1000).
        places: Of the map that comes out (published: 784).
        ops: A namespace with ``Linear``.
    """

    def __init__(self, features: int, places: int, ops: Any = nn) -> None:
        super().__init__()
        self.q, self.k, self.v, self.residual = (ops.Linear(features, places) for _ in range(4))
        self.scale = features**-0.5

    def forward(self, f: Tensor, f0: Tensor, f1: Tensor, f2: Tensor) -> Tensor:
        """Four times [N, features] → [N, places]."""
        q, k, v = self.q((f - f0).abs()), self.k((f - f1).abs()), self.v((f - f2).abs())
        attention = torch.softmax((self.scale * q)[:, :, None] * k[:, None, :], dim=-1)
        return (attention @ v[:, :, None])[:, :, 0] + self.residual(f)


class PlaceScores(nn.Module):
    """Every place's score (≥ 0) and weight (0…1), and their mean Σ score · weight / Σ weight.

    Args:
        width: Channels of a place.
        drop: Share dropped between the layers in training.
        ops: A namespace with ``Linear``.
    """

    def __init__(self, width: int, drop: float = 0.0, ops: Any = nn) -> None:
        super().__init__()
        self.score_in, self.weight_in = ops.Linear(width, width), ops.Linear(width, width)
        self.score_out, self.weight_out = ops.Linear(width, 1), ops.Linear(width, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, places, width] → score and weight of every place, both [N, places], the weights with sum 1."""
        scores = F.relu(self.score_out(self.drop(F.relu(self.score_in(x))))[..., 0])
        weights = torch.sigmoid(self.weight_out(self.drop(F.relu(self.weight_in(x))))[..., 0])
        return scores, weights / weights.sum(dim=1, keepdim=True).clamp_min(_LEAST)
