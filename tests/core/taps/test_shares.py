"""Shares of a pooled feature: they sum to it, cell by cell as a loop over the definitions says."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.taps.recorder import Grid
from latent_critic.core.taps.reducers import by_name
from latent_critic.core.taps.shares import shares

NAMES = ["mean", "std", "logstd", "gmean1", "gmean3", "gmean2.5", "top10", "top37"]


@pytest.fixture
def maps():
    return (
        torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 3, 0.1, 40, 2])[:, None, None]
        + torch.tensor([0, -5, 1, 20, 0.5])[:, None, None]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("centred", [False, True])
def test_shares_sum_to_the_pooled_value(maps, name, centred):
    expected = by_name(name)(maps, Grid(6, 7)).double()
    centre = expected[1].clone() if centred else torch.full((5,), -2.0 if name == "logstd" else 0.0)
    found = shares(maps, name, centre)
    assert found.shape == maps.shape
    torch.testing.assert_close(found.sum((-2, -1)), expected - centre, rtol=1e-5, atol=1e-5)


def test_each_cell_by_its_definition(maps):
    zero, x = torch.zeros(5), maps.double()
    for row in range(3):
        for channel in range(5):
            grid = x[row, channel]
            mean, count = grid.mean(), grid.numel()
            std = ((grid - mean) ** 2).mean().sqrt()
            power = (grid.abs() ** 3).mean() ** (1 / 3)
            for y, z in ((0, 0), (3, 5), (5, 6)):
                value = grid[y, z]
                assert shares(maps, "mean", zero)[row, channel, y, z] == pytest.approx(float(value / count))
                part = float((value - mean) ** 2 / count / std)
                assert shares(maps, "std", zero)[row, channel, y, z] == pytest.approx(part)
                part = float(value.abs() ** 3 / count / power**2)
                assert shares(maps, "gmean3", zero)[row, channel, y, z] == pytest.approx(part)


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_without_contrast_is_finite(name):
    for level in (0.0, 3.0):
        maps = torch.full((1, 1, 4, 4), level)
        found = shares(maps, name, torch.tensor([-2.0]))
        assert torch.isfinite(found).all()
        expected = by_name(name)(maps, Grid(4, 4)).double()[0, 0] + 2.0
        assert float(found.sum()) == pytest.approx(float(expected), abs=1e-5)


def test_a_centre_that_is_the_value_leaves_nothing(maps):
    for name in ("std", "logstd"):
        centre = by_name(name)(maps.double()[:1], Grid(6, 7))[0]
        assert float(shares(maps[:1], name, centre).sum().abs()) < 1e-5


def test_reducers_that_are_no_sums_are_refused(maps):
    for name in ("median", "gmean", "topx"):
        with pytest.raises(BadInput, match="sum over cells"):
            shares(maps, name, torch.zeros(5))
