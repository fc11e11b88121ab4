"""Reducers over a region: those of the whole where everything counts, those of the cut-out where a block counts."""

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.taps.masked import by_name_within
from latent_critic.core.taps.recorder import Grid
from latent_critic.core.taps.reducers import by_name

NAMES = ["mean", "std", "logstd", "gmean3", "gmean1", "top10", "top25", "top100"]


@pytest.fixture
def values():
    return torch.randn(2, 5, 8, 12, generator=torch.Generator().manual_seed(0)) * 3 - 1


@pytest.mark.parametrize("name", NAMES)
def test_where_everything_counts_it_is_the_plain_reducer(values, name):
    grid = Grid(8, 12)
    found = by_name_within(name, torch.ones(1, 1, 64, 96))(values, grid)
    torch.testing.assert_close(found, by_name(name)(values, grid), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_of_whole_cells_is_that_of_the_cut_out(values, name):
    weight = torch.zeros(1, 1, 64, 96)
    weight[..., 16:48, 24:56] = 1.0
    found = by_name_within(name, weight)(values, Grid(8, 12))
    part = values[..., 2:6, 3:7]
    torch.testing.assert_close(found, by_name(name)(part, Grid(4, 4)), rtol=1e-5, atol=1e-6)
    other = values.clone()
    other[..., :2, :] = 1e6  # what lies outside does not matter
    torch.testing.assert_close(by_name_within(name, weight)(other, Grid(8, 12)), found)


@pytest.mark.parametrize("name", ["mean", "std", "logstd", "gmean3"])
def test_a_cell_of_twice_the_weight_counts_twice(values, name):
    """Weights of 1 and 2 against a grid in which the cells of weight 2 stand twice."""
    weight = torch.full((1, 1, 8, 12), 0.5)
    weight[..., 6:] = 1.0
    twice = torch.cat([values, values[..., 6:]], -1)
    found = by_name_within(name, weight)(values, Grid(8, 12))
    torch.testing.assert_close(found, by_name(name)(twice, Grid(8, 18)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["median", "top", "gmean-3"])
def test_unknown_reducers_are_refused(name):
    with pytest.raises(BadInput, match="a reducer"):
        by_name_within(name, torch.ones(1, 1, 8, 8))
