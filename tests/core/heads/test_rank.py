"""Heads from pairs, against scipy's minimiser."""

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.heads.rank import Pairs, Prior, fit_rank
from scipy import optimize


@pytest.fixture
def rows():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=draw, dtype=torch.float64)
    truth = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    order = (x @ truth).argsort(descending=True)
    return x, truth, Pairs(order[:-1], order[1:], torch.ones(39))


def test_pairs_give_the_direction_back(rows):
    x, truth, pairs = rows
    head = fit_rank(x, pairs, 1e-3)
    values = head(x)[0]
    assert float((values[pairs.better] > values[pairs.worse]).double().mean()) > 0.9
    assert float(torch.nn.functional.cosine_similarity(head.weights, truth, dim=0)) > 0.95
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-9)


def test_newton_finds_the_minimum_that_scipy_finds(rows):
    x, _, pairs = rows
    pairs = Pairs(pairs.better, pairs.worse, torch.linspace(0.5, 2.0, 39))
    targets = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = Prior(torch.arange(40), targets, 0.3)
    head = fit_rank(x, pairs, 0.05, prior)
    centred = (x - x.mean(0)).numpy()
    apart = centred[pairs.better] - centred[pairs.worse]
    share = (pairs.weight / pairs.weight.sum()).double().numpy()

    def loss(w):
        belief = 0.5 * 0.3 * np.mean((centred @ w - targets.numpy()) ** 2)
        return np.sum(share * np.logaddexp(0.0, -apart @ w)) + belief + 0.5 * 0.05 * w @ w

    found = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-10})
    assert np.allclose(head.weights.numpy(), found.x, atol=1e-5)


def test_a_weak_prior_does_not_overrule_pairs(rows):
    x, truth, _ = rows
    order = (x @ truth).argsort(descending=True)
    pairs = Pairs(order[:-10], order[10:], torch.ones(30))
    beliefs = -(x @ truth) / (x @ truth).std()
    values = fit_rank(x, pairs, 1e-3, Prior(torch.arange(40), beliefs, 0.1))(x)[0]
    assert float((values[pairs.better] > values[pairs.worse]).double().mean()) > 0.9


def test_no_pairs_are_refused(rows):
    x, _, pairs = rows
    with pytest.raises(BadInput, match="pairs"):
        fit_rank(x, pairs.take(torch.zeros(39, dtype=torch.bool)), 0.1)
