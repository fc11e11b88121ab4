"""The built-in judge's network: EfficientNet-Lite0 maps → mean and deviation per channel → a small head → 0…100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .efficientnet_lite import MAP_CHANNELS, EfficientNetLite0

#: Length of one view's statistics: a mean and a deviation for every channel of every map.
STATISTICS = 2 * sum(MAP_CHANNELS)
#: Length of one picture's description: its crops' statistics averaged, then its global view's.
DESCRIPTION = 2 * STATISTICS
_CLIP = 5.0


def statistics(maps: Sequence[Tensor]) -> Tensor:
    """Maps [N, C_i, h_i, w_i] → [N, 2 · ΣC_i] in fp32: every channel's mean and standard deviation over its map.

    Statistics of some maps, then of the others, are those of all of them in a row.
    """
    parts = []
    for values in maps:
        flat = values.flatten(2).float()
        mean = flat.mean(dim=2)
        # A norm, not torch.std_mean: a fifth of the time on a CPU where channels lie last, and its gradient is 0 at 0.
        deviation = torch.linalg.vector_norm(flat - mean[..., None], dim=2) / flat.shape[2] ** 0.5
        parts += [mean, deviation]
    return torch.cat(parts, dim=1)


def is_deviation(channels: Sequence[int] = MAP_CHANNELS) -> Tensor:
    """[D] mask of the places of a view's statistics that hold deviations."""
    return torch.cat([torch.arange(2 * wide) >= wide for wide in channels])


def of_map(channels: Sequence[int] = MAP_CHANNELS) -> Tensor:
    """[D] which map, from fine to coarse, each place of a view's statistics comes from."""
    return torch.cat([torch.full((2 * wide,), place) for place, wide in enumerate(channels)])


def map_weights(channels: Sequence[int] = MAP_CHANNELS) -> Tensor:
    """[D] weights that give every map the same say, however many channels it has; mean square 1."""
    weights = torch.cat([torch.full((2 * wide,), (2.0 * wide) ** -0.5) for wide in channels])
    return weights / weights.square().mean().sqrt()


def describe(crops: Tensor, whole: Tensor, channels: Sequence[int] = MAP_CHANNELS) -> Tensor:
    """Statistics of one or more pictures' crops [N, K, D] and global views [N, D] → descriptions [N, 2 D].

    Deviations enter as logarithms: contrast of a feature is a ratio scale. ``channels`` are those of the trunk's maps.
    """
    mask = is_deviation(channels).to(crops.device)

    def logged(values: Tensor) -> Tensor:
        return torch.where(mask, (values.clamp_min(0.0) + 1e-2).log(), values)

    return torch.cat([logged(crops).mean(dim=1), logged(whole)], dim=1)


class JudgeHead(nn.Module):
    """Descriptions [N, 2 D] → scores [N] in 0…100: standardise, one hidden layer, a logistic link.

    An ensemble of such heads, averaged before the link, is one wider head; that is how several seeds ship as one.

    Args:
        width: Hidden units.
        ops: A namespace with ``Linear``.
        rank: Units of a linear layer without bias before the hidden one, which makes a small head; 0 for none.
        channels: Of the trunk's maps.
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor

    def __init__(self, width: int, ops: Any = nn, rank: int = 0, channels: Sequence[int] = MAP_CHANNELS) -> None:
        super().__init__()
        self.width, self.rank = width, rank
        inputs = 4 * sum(channels)  # a mean and a deviation of each, in crops and in the global view
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("weights", map_weights(channels).repeat(2), persistent=False)
        self.squeeze = ops.Linear(inputs, rank, bias=False) if rank else None
        self.hidden = ops.Linear(rank or inputs, width)
        self.out = ops.Linear(width, 1)

    def standardised(self, descriptions: Tensor) -> Tensor:
        """Centred and scaled by the training set, clipped at five deviations, maps weighted alike."""
        return ((descriptions - self.centre) / self.scale).clamp(-_CLIP, _CLIP) * self.weights

    def inner(self, standardised: Tensor) -> Tensor:
        """What goes into the hidden layer's GELU, [N, width]."""
        return self.hidden(standardised if self.squeeze is None else self.squeeze(standardised))

    def matrix(self) -> Tensor:
        """[width, 2 D] weights from standardised descriptions to hidden units, squeeze multiplied in; fp64, CPU."""
        weight = self.hidden.weight.detach().to("cpu", torch.float64)
        return weight if self.squeeze is None else weight @ self.squeeze.weight.detach().to("cpu", torch.float64)

    def logits(self, standardised: Tensor) -> Tensor:
        """What goes into the link, [N]."""
        return self.out(F.gelu(self.inner(standardised)))[:, 0]

    def forward(self, descriptions: Tensor) -> Tensor:
        """Descriptions [N, 2 D] → scores [N]."""
        return 100.0 * torch.sigmoid(self.logits(self.standardised(descriptions)))


class JudgeNetwork(nn.Module):
    """Backbone and head in one module, so that a host can hold and place them together.

    Args:
        width: Hidden units of the head.
        ops: A namespace with ``Conv2d`` and ``Linear``: ``torch.nn``, or a host's casting layers.
        rank: Of the head's squeeze; 0 for none.
    """

    def __init__(self, width: int, ops: Any = nn, rank: int = 0) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(ops)
        self.head = JudgeHead(width, ops, rank)

    def statistics(self, views: Tensor) -> Tensor:
        """Views [N, 3, h, w] in [0, 1] → [N, D] in fp32. Rows do not depend on each other."""
        return statistics(self.backbone.features(views))

    def forward(self, crops: Tensor, whole: Tensor) -> Tensor:
        """One picture: crops [K, 3, 256, 256] and global view [1, 3, h, w] → its score [1]."""
        return self.head(describe(self.statistics(crops)[None], self.statistics(whole)))
