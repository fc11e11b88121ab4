"""Losses on a batch of scores: squared error, ranking, linear correlation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput

#: Distance that a pair's scores are pushed to, in deviations of the ratings.
_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each term counts; published is squared error alone.

    Attributes:
        mse: Mean squared error in units of the set's variance of ratings.
        rank: Mean over pairs of max(0, margin - (better's score - worse's score)), in deviations of the ratings.
        plcc: (1 - Pearson's correlation) / 2 within the batch.
    """

    mse: float = 1.0
    rank: float = 0.0
    plcc: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.mse, self.rank, self.plcc)
        if not all(weight >= 0.0 for weight in weights) or not 0.0 < sum(weights) < float("inf"):
            raise BadInput("finite weights ≥ 0, not all 0", str(weights), "Published: mse 1, rank 0, plcc 0.")


def batch_loss(scores: Tensor, mos: Tensor, deviation: float, weights: LossWeights) -> Tensor:
    """Scores [n] and ratings [n] of one data set → one number; ranking and correlation need two pictures or more."""
    apart = (scores - mos) / deviation
    loss = weights.mse * apart.square().mean()
    if len(scores) > 1 and weights.rank:
        loss = loss + weights.rank * rank_loss(scores / deviation, mos / deviation)
    if len(scores) > 1 and weights.plcc:
        loss = loss + weights.plcc * (1.0 - correlation(scores, mos)) / 2.0
    return loss


def ladder_loss(scores: Tensor) -> Tensor:
    """Mean hinge over pairs of rows [2 n], less damaged and more damaged, in deviations of the ratings."""
    less, more = scores.view(-1, 2).unbind(1)
    return F.relu(_MARGIN - (less - more)).mean()


def rank_loss(scores: Tensor, mos: Tensor) -> Tensor:
    """Mean hinge over all pairs that people told apart; 0 without any."""
    better = mos[:, None] - mos[None, :]
    told = better > 0
    margin = better.clamp(max=_MARGIN)
    hinge = F.relu(margin - (scores[:, None] - scores[None, :]))
    return hinge[told].mean() if bool(told.any()) else scores.sum() * 0.0


def correlation(scores: Tensor, mos: Tensor) -> Tensor:
    """Pearson's, with a floor under the deviations so that a constant gives 0 and a finite gradient."""
    a, b = scores - scores.mean(), mos - mos.mean()
    return (a * b).sum() / torch.sqrt(a.square().sum() * b.square().sum() + 1e-12)
