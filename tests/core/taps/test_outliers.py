"""Feature reducers by name, and what is taken away before them."""

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.taps import reducers
from latent_critic.core.taps.outliers import without_outliers, without_position
from latent_critic.core.taps.recorder import Grid

GRID = Grid(4, 5)
NAMES = ["mean", "std", "logstd", "gmean3", "gmean1.5", "top10"]


@pytest.fixture
def features():
    return torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_reducer_gives_a_value_per_channel_and_row(features, name):
    reduce = reducers.by_name(name)
    whole = reduce(features.half(), GRID)
    assert whole.dtype == torch.float32
    assert whole.shape == (3, 6)
    torch.testing.assert_close(reduce(features[1:2].half(), GRID)[0], whole[1])


def test_generalised_mean_by_numpy(features):
    x = features.double().numpy()
    for power in (1.0, 3.0, 8.0):
        expected = (np.abs(x) ** power).mean((2, 3)) ** (1 / power)
        assert np.allclose(reducers.generalised_mean(power)(features, GRID).numpy(), expected, rtol=1e-5)
    large = reducers.generalised_mean(8.0)(1e6 * features, GRID)
    assert bool(large.isfinite().all())
    assert torch.equal(reducers.generalised_mean(3.0)(torch.zeros_like(features), GRID), torch.zeros(3, 6))
    assert np.allclose(reducers.by_name("std")(features, GRID).numpy(), x.std((2, 3)), rtol=1e-5)


@pytest.mark.parametrize("name", ["median", "gmean", "top", "gmeanx", "gmean0.5", "top0", ""])
def test_unknown_reducers_are_named(name):
    with pytest.raises(BadInput):
        reducers.by_name(name)


def test_cells_of_high_norm_are_brought_down_and_others_are_left(features):
    loud = features.clone()
    loud[1, :, 2, 3] *= 100.0
    reduce = without_outliers(reducers.full, 3.0)
    found = reduce(loud, GRID)
    norms = found[1].square().sum(0).sqrt()
    assert float(norms.max()) == pytest.approx(3.0 * float(norms.median()), rel=1e-5)
    kept = torch.ones(3, 6, 4, 5, dtype=torch.bool)
    kept[1, :, 2, 3] = False
    assert torch.equal(found[kept], loud[kept])
    torch.testing.assert_close(found[1, :, 2, 3] / norms[2, 3], loud[1, :, 2, 3] / loud[1, :, 2, 3].norm())
    with pytest.raises(BadInput, match="above 1"):
        without_outliers(reducers.full, 1.0)


def test_a_pattern_is_taken_from_every_row(features):
    pattern = torch.arange(120.0).reshape(6, 4, 5)
    found = without_position(reducers.full, lambda: pattern)(features, GRID)
    assert torch.equal(found, features - pattern)
    assert torch.equal(without_position(reducers.full, lambda: None)(features, GRID), features)
