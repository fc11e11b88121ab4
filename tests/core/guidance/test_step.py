"""The sums of a step against diffusers' schedulers, the textbook's form and finite differences."""

import itertools

import pytest
import torch
from latent_critic.core.backbone.schedule import noised, sigma_of_timestep
from latent_critic.core.guidance.inversion import climb
from latent_critic.core.guidance.step import ddim, eps_of, fresh_share, move, root_mean_square

STEPS = [(900, 800), (500, 400), (100, 0), (0, -100)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(("t", "after"), STEPS)
def test_a_step_is_diffusers_ddim(diffusers, prediction, eta, t, after):
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type={"eps": "epsilon", "v": "v_prediction"}[prediction],
    )
    scheduler.set_timesteps(10)
    z_t, out, noise = draw(2, 4, 5, 6), draw(2, 4, 5, 6, seed=1), draw(2, 4, 5, 6, seed=2)
    expected = scheduler.step(out, t, z_t, eta=eta, variance_noise=noise)
    sigma, lower = sigma_of_timestep(t), sigma_of_timestep(after) if after >= 0 else 0.0
    ours = z_t * (1 + sigma**2) ** 0.5  # from its variance-preserving scale
    found = ddim(
        expected.pred_original_sample,
        eps_of(ours, expected.pred_original_sample, sigma, prediction),
        sigma,
        lower,
        prediction,
        eta=eta,
        noise=noise,
    )
    reference = expected.prev_sample * (1 + lower**2) ** 0.5
    torch.testing.assert_close(found, reference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_is_the_textbooks(eta):
    for t, after in itertools.pairwise((999, 500, 100, 20, 0)):
        a_t, a_s = (1 / (1 + sigma_of_timestep(at) ** 2) for at in (t, after))
        x0, eps, noise = draw(1, 4, 3, 3), draw(1, 4, 3, 3, seed=1), draw(1, 4, 3, 3, seed=2)
        spread = eta * ((1 - a_s) / (1 - a_t)) ** 0.5 * (1 - a_t / a_s) ** 0.5
        expected = a_s**0.5 * x0 + (1 - a_s - spread**2) ** 0.5 * eps + spread * noise
        found = ddim(x0, eps, sigma_of_timestep(t), sigma_of_timestep(after), "eps", eta=eta, noise=noise)
        torch.testing.assert_close(found * a_s**0.5, expected, rtol=1e-10, atol=1e-10)


def test_a_flow_step_is_diffusers_euler(diffusers):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.8, 0.5, 0.2])
    z_t = draw(2, 4, 5, 6)
    for level, (sigma, lower) in enumerate(itertools.pairwise([*scheduler.sigmas.tolist()])):
        velocity = draw(2, 4, 5, 6, seed=level + 1)
        expected = scheduler.step(velocity, scheduler.timesteps[level], z_t).prev_sample
        x0 = z_t - sigma * velocity
        found = ddim(x0, eps_of(z_t, x0, sigma, "flow"), sigma, lower, "flow")
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_flow_step_is_an_eps_step_of_equal_signal_to_noise_ratio(eta):
    """x = z + s·ε and (1 − σ)·z + σ·ε with s = σ / (1 − σ) are one state on two scales."""
    x0, eps, noise = draw(1, 4, 3, 3), draw(1, 4, 3, 3, seed=1), draw(1, 4, 3, 3, seed=2)
    for sigma, lower in ((0.7, 0.3), (0.25, 0.1), (0.1, 0.0)):
        plain = ddim(x0, eps, sigma / (1 - sigma), lower / (1 - lower), "eps", eta=eta, noise=noise)
        flow = ddim(x0, eps, sigma, lower, "flow", eta=eta, noise=noise)
        torch.testing.assert_close(flow, (1 - lower) * plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_noise_goes_in_and_comes_out(prediction):
    z, eps = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    for sigma in (0.05, 0.3, 0.9):
        state = noised(z, eps, sigma, prediction)
        torch.testing.assert_close(eps_of(state, z, sigma, prediction), eps, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ddim(z, eps, sigma, 0.0, prediction), z)
        at = sigma / 2
        torch.testing.assert_close(ddim(z, eps, sigma, at, prediction), noised(z, eps, at, prediction))


@pytest.mark.parametrize("prediction", ["eps", "flow"])
def test_fresh_noise_keeps_the_level(prediction):
    """Independent unit noises add in squares: whatever eta, the state's noise has the level's own spread."""
    x0 = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for sigma, after in ((0.8, 0.5), (0.3, 0.05)):
        for eta in (0.2, 1.0):
            fresh = fresh_share(sigma, after, prediction, eta)
            kept = float(ddim(x0, torch.ones_like(x0), sigma, after, prediction, eta=eta, noise=torch.zeros_like(x0)))
            assert kept**2 + fresh**2 == pytest.approx(after**2)
            assert fresh > 0
    assert fresh_share(0.3, 0.1, prediction, 0.0) == fresh_share(0.3, 0.0, prediction, 1.0) == 0.0


def test_from_pure_noise_a_flow_step_takes_only_fresh_noise_at_eta_1():
    assert fresh_share(1.0, 0.4, "flow", 1.0) == pytest.approx(0.4)


def energy_of(z):
    return (z.sin() - 0.3).square().flatten(1).sum(1)


@pytest.mark.parametrize("squared", [True, False])
def test_a_move_follows_the_finite_differences_of_its_energy(squared):
    z = draw(2, 4, 3, 3).requires_grad_(True)
    energy = energy_of(z)
    (gradient,) = torch.autograd.grad(energy.sum(), z)
    z = z.detach()
    moved = move(z, gradient, energy.detach(), 0.7, normalised=False, squared=squared)

    def value(at):
        return energy_of(at) if squared else energy_of(at).sqrt()

    h = 1e-6
    for row, channel, y, x in ((0, 0, 0, 0), (1, 3, 2, 1)):
        step = torch.zeros_like(z)
        step[row, channel, y, x] = h
        slope = float(((value(z + step) - value(z - step)) / (2 * h))[row])
        assert float((z - moved)[row, channel, y, x]) == pytest.approx(0.7 * slope, rel=1e-6)


@pytest.mark.parametrize("squared", [True, False])
def test_a_normalised_move_has_the_length_that_was_asked_for(squared):
    z, gradient = draw(3, 4, 6, 5), draw(3, 4, 6, 5, seed=1) * 1e-4
    energy = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    moved = move(z, gradient, energy, 0.05, normalised=True, squared=squared)
    torch.testing.assert_close(root_mean_square(moved - z), torch.full((3,), 0.05, dtype=torch.float64))


def test_a_small_region_moves_as_far_as_a_whole_picture():
    z, gradient, cells = torch.zeros(2, 4, 64, 64), torch.zeros(2, 4, 64, 64), torch.zeros(2, 1, 64, 64)
    gradient[0, :, :8, :8], cells[0, :, :8, :8] = draw(4, 8, 8).float(), 1.0
    gradient[1], cells[1] = draw(4, 64, 64).float(), 1.0
    moved = move(z, gradient, torch.ones(2), 0.03, normalised=True, squared=True, cells=cells)
    assert float(moved[0, :, :8, :8].square().mean().sqrt()) == pytest.approx(0.03)
    plain = move(z, gradient, torch.ones(2), 0.03, normalised=True, squared=True)
    torch.testing.assert_close(moved[1], plain[1])
    still = move(z, gradient, torch.ones(2), 0.03, normalised=True, squared=True, cells=torch.zeros_like(cells))
    assert torch.equal(still, z)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_a_row_at_its_minimum_stays(normalised, squared):
    z, gradient = draw(2, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    gradient[0] = 0.0
    moved = move(z, gradient, torch.tensor([0.0, 1.0]), 0.5, normalised=normalised, squared=squared)
    assert torch.equal(moved[0], z[0])
    assert not torch.equal(moved[1], z[1])


def test_an_inversion_starts_at_the_first_timestep_of_the_schedule():
    first, levels = sigma_of_timestep(0), [sigma_of_timestep(t) for t in (100, 60, 20)]
    assert climb(levels, "eps") == [(first, levels[2]), (levels[2], levels[1]), (levels[1], levels[0])]
    assert climb([*levels, first], "eps") == climb(levels, "eps")
