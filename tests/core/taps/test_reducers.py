"""Reducers against loops in float64, and what each must keep to."""

import math

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.taps import reducers
from latent_critic.core.taps.recorder import Grid

GRID = Grid(3, 5)


@pytest.fixture
def features():
    return torch.randn(4, 6, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits():
    return 4 * torch.randn(4, 2, 15, 7, generator=torch.Generator().manual_seed(1))


def all_of(kind):
    feature = [
        reducers.mean,
        reducers.mean_std,
        reducers.top_k_mean(0.2),
        reducers.several(reducers.mean, reducers.mean_std),
    ]
    attention = [
        reducers.log_sum_exp(0.14),
        reducers.probabilities,
        reducers.token_mass,
        reducers.token_maps,
        reducers.several(reducers.token_mass, reducers.log_sum_exp()),
    ]
    return [reducers.full, *(feature if kind == "feature" else attention)]


@pytest.mark.parametrize("kind", ["feature", "attention"])
@pytest.mark.parametrize("number", range(5))
def test_no_row_depends_on_another(request, kind, number):
    values = request.getfixturevalue("features" if kind == "feature" else "logits")
    reducer = all_of(kind)[number % len(all_of(kind))]
    whole = reducer(values, GRID)
    assert whole.shape[0] == 4
    for row in range(4):
        torch.testing.assert_close(reducer(values[row : row + 1], GRID)[0], whole[row])


def test_full_is_a_copy(features):
    kept = reducers.full(features, GRID)
    features.zero_()
    assert kept.abs().sum() > 0


def test_mean_and_deviation_by_loops(features):
    found = reducers.mean_std(features.half(), GRID)
    assert found.dtype == torch.float32
    for row in range(4):
        for channel in range(6):
            cells = [float(v) for v in features.half()[row, channel].double().flatten()]
            centre = sum(cells) / 15
            assert float(found[row, channel]) == pytest.approx(centre, abs=1e-5)
            deviation = math.sqrt(sum((v - centre) ** 2 for v in cells) / 15)
            assert float(found[row, 6 + channel]) == pytest.approx(deviation, abs=1e-5)


def test_top_k_by_sorting(features):
    found = reducers.top_k_mean(0.2)(features, GRID)
    expected = features.double().flatten(2).sort(dim=-1).values[..., -3:].mean(-1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reducers.top_k_mean(1e-9)(features, GRID), features.amax((-1, -2)))


def test_log_sum_exp_by_loops_and_free_of_the_resolution(logits):
    found = reducers.log_sum_exp(0.14)(logits, GRID)
    for head in range(2):
        column = [float(v) for v in logits[1, head, :, 3].double()]
        expected = math.log(sum(math.exp(0.14 * v) for v in column) / 15) / 0.14
        assert float(found[1, head, 3]) == pytest.approx(expected, abs=1e-4)
    twice = logits.repeat(1, 1, 2, 1)
    torch.testing.assert_close(reducers.log_sum_exp(0.14)(twice, Grid(6, 5)), found)


def test_log_sum_exp_lies_between_mean_and_maximum(logits):
    for temperature in (0.01, 0.14, 1.0, 10.0):
        found = reducers.log_sum_exp(temperature)(logits, GRID)
        assert (found <= logits.amax(2) + 1e-4).all()
        assert (found >= logits.mean(2) - 1e-2).all()


def test_probabilities_sum_to_one_and_equal_a_softmax_by_hand(logits):
    found = reducers.probabilities(logits, GRID)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 2, 15))
    powers = logits.double().exp()
    torch.testing.assert_close(found.double(), powers / powers.sum(-1, keepdim=True), rtol=1e-5, atol=1e-7)


def test_token_mass_and_maps_agree(logits):
    maps = reducers.token_maps(logits, GRID)
    assert maps.shape == (4, 7, 3, 5)
    torch.testing.assert_close(maps.mean((-1, -2)), reducers.token_mass(logits, GRID))
    torch.testing.assert_close(maps.sum(1), torch.ones(4, 3, 5))
    # row-major: cell (1, 2) is query 1 * 5 + 2
    torch.testing.assert_close(maps[0, :, 1, 2], reducers.probabilities(logits, GRID)[0, :, 7].mean(0))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_bad_share(share):
    with pytest.raises(BadInput):
        reducers.top_k_mean(share)


def test_bad_temperature():
    with pytest.raises(BadInput):
        reducers.log_sum_exp(0.0)
