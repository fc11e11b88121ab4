"""The cosine schedule against its closed form, and the steps against the DDPM posterior, in float64."""

import math

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.restoration.schedule import (
    KEPT,
    PUBLISHED_STEPS,
    TRAINING_STEPS,
    Level,
    alpha_bars,
    ddim,
    draw_signals,
    inference_levels,
)


def _closed_form(t: float) -> float:
    s = 0.008
    return (math.cos((t + s) / (1 + s) * math.pi / 2) / math.cos(s / (1 + s) * math.pi / 2)) ** 2


@pytest.mark.parametrize("steps", [50, 2000])
def test_closed_form(steps):
    """Up to where a beta would pass .999; the end is that share of the step before."""
    found = alpha_bars(steps)
    assert found.dtype == np.float64
    for place in range(steps - 1):
        wanted = _closed_form((place + 1) / steps)
        if 1 - wanted / _closed_form(place / steps) < 0.999:
            assert found[place] == pytest.approx(wanted, rel=1e-9, abs=1e-15)
    assert found[-1] == pytest.approx(found[-2] * 0.001, rel=1e-9)
    assert (np.diff(found) < 0).all()


def test_the_fifty_are_of_the_two_thousand():
    fifty, all_of_them = alpha_bars(PUBLISHED_STEPS), alpha_bars(TRAINING_STEPS)
    apart = TRAINING_STEPS // PUBLISHED_STEPS
    np.testing.assert_allclose(fifty[:-1], all_of_them[apart - 1 :: apart][:-1], rtol=1e-9)


def test_the_kept_levels_are_the_inferred_ones():
    """About .04, .20 and .35, at steps 0, 5 and 10 of 50."""
    assert KEPT == (0, 5, 10)
    noise = {level.kept: level.noise for level in inference_levels(50)}
    assert [round(noise[place], 2) for place in range(3)] == [0.04, 0.20, 0.35]


@pytest.mark.parametrize("steps", range(4, 51))
def test_fewer_steps_keep_the_same_levels(steps):
    levels, published = inference_levels(steps), inference_levels(50)
    assert len(levels) == steps
    noises = [level.noise for level in levels]
    assert noises == sorted(noises, reverse=True)
    assert levels[0] == published[0]
    assert set(levels) <= set(published)
    assert [level for level in levels if level.kept is not None] == [
        level for level in published if level.kept is not None
    ]
    assert all(level.signal**2 + level.noise**2 == pytest.approx(1.0) for level in levels)


@pytest.mark.parametrize("steps", [0, 3, 51])
def test_too_few_or_too_many_steps_are_refused(steps):
    with pytest.raises(BadInput):
        inference_levels(steps)


def test_ancestral_steps_are_the_ddpm_posterior():
    """eta = 1 gives q(x_{t-1} | x_t, x0) of Ho et al., 2020, eq. 7."""
    generator = torch.Generator().manual_seed(0)
    x, x0, fresh = (torch.randn((2, 3, 4, 4), generator=generator, dtype=torch.float64) for _ in range(3))
    for before, after in ((0.3, 0.6), (0.001, 0.9), (0.97, 0.99)):
        beta = 1 - before / after
        mean = (after**0.5 * beta * x0 + (before / after) ** 0.5 * (1 - after) * x) / (1 - before)
        variance = (1 - after) / (1 - before) * beta
        one, two = (Level(share**0.5, (1 - share) ** 0.5, None) for share in (before, after))
        found = ddim(x, x0, one, two, 1.0, fresh)
        torch.testing.assert_close(found, mean + variance**0.5 * fresh)


def test_ddim_keeps_the_noise():
    """From signal · x0 + noise · eps to the same two at the other level."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn((1, 3, 4, 4), generator=generator, dtype=torch.float64) for _ in range(2))
    one, two = Level(0.6, 0.8, None), Level(0.8, 0.6, None)
    torch.testing.assert_close(ddim(0.6 * x0 + 0.8 * eps, x0, one, two), 0.8 * x0 + 0.6 * eps)
    assert ddim(eps, x0, one, None) is x0


def test_training_levels_lie_within_their_steps():
    """Uniform over the steps, uniform within one: the quantiles are the schedule's."""
    drawn = draw_signals(200_000, torch.Generator().manual_seed(0)).double()
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) <= 1.0
    edges = np.sqrt(alpha_bars(TRAINING_STEPS))
    for share in (0.1, 0.5, 0.9):
        assert float(drawn.quantile(1 - share)) == pytest.approx(edges[int(share * TRAINING_STEPS)], abs=0.01)
    low = draw_signals(1000, torch.Generator().manual_seed(0), highest_noise=0.4)
    assert 0.39 < float((1 - low.double() ** 2).sqrt().max()) <= 0.4
    again = draw_signals(5, torch.Generator().manual_seed(1))
    assert torch.equal(again, draw_signals(5, torch.Generator().manual_seed(1)))
