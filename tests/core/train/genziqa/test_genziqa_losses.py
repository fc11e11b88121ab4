"""Losses of GenzIQA's training against other libraries."""

import math

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.train.genziqa_losses import LossWeights, batch_loss, correlation, ladder_loss, rank_loss
from scipy import stats


def test_the_losses_are_what_they_are_called():
    draw = torch.Generator().manual_seed(0)
    scores, mos = 50 + 20 * torch.randn(9, generator=draw), 100 * torch.rand(9, generator=draw)
    assert float(correlation(scores, mos)) == pytest.approx(stats.pearsonr(scores, mos).statistic, abs=1e-6)
    pairs = [
        max(0.0, min(float(mos[i] - mos[j]), 0.25) - float(scores[i] - scores[j]))
        for i in range(9)
        for j in range(9)
        if mos[i] > mos[j]
    ]
    assert float(rank_loss(scores, mos)) == pytest.approx(math.fsum(pairs) / len(pairs), rel=1e-5)
    whole = batch_loss(scores, mos, 20.0, LossWeights(1.0, 0.5, 2.0))
    expected = float(((scores - mos) / 20).square().mean()) + 0.5 * float(rank_loss(scores / 20, mos / 20))
    assert float(whole) == pytest.approx(expected + 1.0 - float(correlation(scores, mos)), rel=1e-5)


def test_losses_of_alike_pictures_are_finite_with_their_gradients():
    scores = torch.full((3,), 5.0, requires_grad=True)
    batch_loss(scores, torch.full((3,), 7.0), 1.0, LossWeights(1.0, 1.0, 1.0)).backward()
    assert scores.grad.isfinite().all()
    assert float(rank_loss(torch.zeros(2), torch.tensor([1.0, 9.0]))) == pytest.approx(0.25)


def test_ladders_ask_for_less_where_there_is_more_damage():
    assert float(ladder_loss(torch.tensor([1.0, 0.5, 0.2, 0.0]))) == pytest.approx(0.05 / 2)
    scores = torch.tensor([0.0, 0.0], requires_grad=True)
    ladder_loss(scores).backward()
    assert scores.grad.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("weights", [(0, 0, 0), (-1, 0, 1), (math.nan, 1, 1), (math.inf, 0, 0)])
def test_bad_loss_weights(weights):
    with pytest.raises(BadInput, match="Expected"):
        LossWeights(*weights)
