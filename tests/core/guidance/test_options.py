"""Options at the door, and the placement of levels."""

import itertools

import pytest
from latent_critic.core.backbone.schedule import sigma_of_timestep
from latent_critic.core.errors import BadInput
from latent_critic.core.guidance.options import GuidanceOptions, place_levels


@pytest.mark.parametrize(
    "bad",
    [
        {"timesteps": ()},
        {"timesteps": (20, 100)},
        {"timesteps": (50, 50)},
        {"timesteps": (1000, 20)},
        {"timesteps": (20, -1)},
        {"zeta1": -0.1},
        {"zeta2": float("nan")},
        {"eta": 1.1},
        {"start": "nowhere"},
        {"through": "decoder"},
        {"measurement": "words"},
        {"decoder": "huge"},
        {"growth": 1.0},
        {"growth": float("inf")},
        {"most_rows": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(bad):
    with pytest.raises(BadInput):
        GuidanceOptions(**bad)


def test_all_that_changes_a_value_is_told():
    told = GuidanceOptions().to_dict()
    assert "most_rows" not in told
    assert {"timesteps", "zeta1", "zeta2", "start", "through", "seed", "eta", "decoder", "growth"} <= set(told)


def test_the_default_levels_are_those_of_the_default_placement():
    assert GuidanceOptions().timesteps == place_levels(5)


@pytest.mark.parametrize("placement", ["time", "sigma", "log_sigma"])
@pytest.mark.parametrize(("count", "highest", "lowest"), [(1, 100, 20), (4, 99, 0), (10, 100, 91), (7, 900, 3)])
def test_levels_fall_between_their_ends(placement, count, highest, lowest):
    levels = place_levels(count, highest, lowest, placement)
    assert len(levels) == count
    assert levels[0] == highest
    assert count == 1 or levels[-1] == lowest
    GuidanceOptions(timesteps=levels)


def test_log_sigma_spreads_levels_evenly_over_halvings():
    sigmas = [sigma_of_timestep(t) for t in place_levels(4, 900, 10, "log_sigma")]
    ratios = [a / b for a, b in itertools.pairwise(sigmas)]
    assert max(ratios) / min(ratios) < 1.1
    steps = [a - b for a, b in itertools.pairwise(sigmas)]
    assert max(steps) / min(steps) > 2


@pytest.mark.parametrize(("count", "highest", "lowest"), [(0, 100, 20), (3, 10, 9), (2, 20, 100), (2, 1000, 0)])
def test_levels_that_do_not_fit_are_refused(count, highest, lowest):
    with pytest.raises(BadInput):
        place_levels(count, highest, lowest)


def test_an_unknown_placement_is_refused():
    with pytest.raises(BadInput, match="placement"):
        place_levels(3, placement="elsewhere")
