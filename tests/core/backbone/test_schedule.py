"""Timesteps to noise levels, against numbers that are known from elsewhere."""

import pytest
import torch
from latent_critic.core.backbone.schedule import sigma_of_timestep
from latent_critic.core.errors import BadInput


def test_the_ends_of_stable_diffusions_schedule():
    # The values that samplers print for SD: sigma_min .0292, sigma_max 14.6146.
    assert sigma_of_timestep(0) == pytest.approx(0.0292, abs=1e-4)
    assert sigma_of_timestep(999) == pytest.approx(14.6146, abs=1e-3)


def test_against_a_loop_in_torch():
    alpha_bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    for t in (0, 9, 100, 500, 999):
        assert sigma_of_timestep(t, "v") == pytest.approx(float(((1 - alpha_bar[t]) / alpha_bar[t]) ** 0.5))


def test_flow_has_equal_signal_to_noise_ratio():
    sigma, flow = sigma_of_timestep(100), sigma_of_timestep(100, "flow")
    assert sigma == pytest.approx(0.344, abs=1e-3)
    assert flow == pytest.approx(0.256, abs=1e-3)
    assert flow / (1 - flow) == pytest.approx(sigma)


@pytest.mark.parametrize("t", [-1, 1000])
def test_outside_the_schedule(t):
    with pytest.raises(BadInput, match="0 to 999"):
        sigma_of_timestep(t)
