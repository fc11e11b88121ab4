"""Losses of the judge's training: scores against ratings and against ladders, in deviations of the ratings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput
from .genziqa_losses import correlation, rank_loss

_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class TuneLosses:
    """How much each term counts.

    Attributes:
        smooth: Smooth L1 of the score, as the frozen judge's head is fitted.
        mse: Squared error.
        norm_in_norm: See :func:`norm_in_norm`.
        rank: Margin ranking of every pair of a batch.
        plcc: (1 - Pearson's correlation) / 2 within the batch.
        fidelity: See :func:`fidelity_loss`, over pairs of like content alone.
        ladders: See :func:`ladder_loss`.
        factor: Squared error of the hidden scale factor's logarithm (base 2), told beside the score.
    """

    smooth: float = 0.0
    mse: float = 1.0
    norm_in_norm: float = 0.0
    rank: float = 0.0
    plcc: float = 0.5
    fidelity: float = 0.0
    ladders: float = 0.0
    factor: float = 0.0

    def __post_init__(self) -> None:
        weights = asdict(self)
        rated = sum(weights[name] for name in ("smooth", "mse", "norm_in_norm", "rank", "plcc", "fidelity"))
        if not all(weight >= 0.0 and math.isfinite(weight) for weight in weights.values()) or rated <= 0.0:
            raise BadInput(
                "finite weights ≥ 0, one of a rating's not 0", str(weights), "The default is mse 1, plcc 0.5."
            )


def rated_loss(scores: Tensor, mos: Tensor, mates: Tensor, deviation: float, losses: TuneLosses) -> Tensor:
    """Scores [n] and ratings [n] of one batch → one number.

    Args:
        scores: In 0…100, with gradients.
        mos: In 0…100.
        mates: [pairs, 2] places of pictures of like content.
        deviation: Standard deviation of the ratings.
        losses: What counts.
    """
    a, b = scores / deviation, mos / deviation
    loss = losses.mse * (a - b).square().mean() + losses.smooth * F.smooth_l1_loss(a, b, beta=0.5)
    if len(scores) > 1:
        if losses.norm_in_norm:
            loss = loss + losses.norm_in_norm * norm_in_norm(a, b)
        if losses.rank:
            loss = loss + losses.rank * rank_loss(a, b)
        if losses.plcc:
            loss = loss + losses.plcc * (1.0 - correlation(a, b)) / 2.0
    if losses.fidelity and len(mates):
        first, second = mates.unbind(1)
        loss = loss + losses.fidelity * fidelity_loss(a[first] - a[second], b[first] - b[second])
    return loss


def norm_in_norm(scores: Tensor, mos: Tensor) -> Tensor:
    """Li, Jiang and Jiang (2020, arXiv 2008.03889), p = 1, q = 2: 0 for a perfect line, at most 1.

    Both sides are centred and divided by their Euclidean norm; the sum of absolute differences is divided by its
    largest possible value, 2 √n.
    """
    a, b = scores - scores.mean(), mos - mos.mean()
    a, b = (side / torch.sqrt(side.square().sum() + _TINY) for side in (a, b))
    return (a - b).abs().sum() / (2.0 * len(scores) ** 0.5)


def fidelity_loss(scores: Tensor, mos: Tensor) -> Tensor:
    """Fidelity (Tsai et al., FRank, 2007) of Thurstone's preferences, as UNIQUE trains (arXiv 2005.13983): 0…1.

    Args:
        scores: [pairs] first less second score, in deviations of the ratings.
        mos: [pairs] first less second rating, likewise.

    Thurstone's case V with unit spread on both sides: p = Φ(difference / √2).
    """
    told, meant = (0.5 * (1.0 + torch.erf(side / 2.0)) for side in (scores, mos))
    same = torch.sqrt(told * meant + _TINY)
    other = torch.sqrt((1.0 - told) * (1.0 - meant) + _TINY)
    return (1.0 - same - other).mean()


def ladder_loss(better: Tensor, worse: Tensor, margin: Tensor, deviation: float) -> Tensor:
    """Mean softplus of how far each pair [n] falls short of its margin, in deviations of the ratings; 0 without any."""
    if not len(better):
        return better.sum() * 0.0
    return F.softplus(4.0 * (margin - (better - worse) / deviation)).mean() / 4.0
