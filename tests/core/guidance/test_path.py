"""The guided path on tiny real networks."""

import itertools

import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.guidance.options import GuidanceOptions
from latent_critic.core.guidance.path import guided_path
from latent_critic.core.taps.recorder import Recorder
from latent_critic.core.taps.reducers import full, mean

LEVELS = (100, 60, 20)


def walk(backbone, images, psi=None, recorder=None, *, prompt="a photo", **rest):
    keywords = {name: rest.pop(name) for name in ("watch", "weight", "keep_z") if name in rest}
    target = rest.pop("target", images)
    options = GuidanceOptions(**{"timesteps": LEVELS, **rest})
    clean = backbone.encode(images)
    conditioning = backbone.embed([prompt]).rows([0] * len(images))
    return guided_path(backbone, clean, target, options, psi, conditioning, recorder, **keywords)


def plain_ddim(backbone, images, timesteps=LEVELS, seed=0):
    """DDIM of its own, in the textbook's variance-preserving form."""
    from latent_critic.core.backbone.schedule import sigma_of_timestep

    clean = backbone.encode(images)
    text = backbone.embed(["a photo"]).rows([0] * len(images))
    shares = [1 / (1 + sigma_of_timestep(t) ** 2) for t in timesteps] + [1.0]
    z = shares[0] ** 0.5 * clean + (1 - shares[0]) ** 0.5 * backbone.noise(clean.shape[1:], seed)
    for share, after in itertools.pairwise(shares):
        sigma = ((1 - share) / share) ** 0.5
        x0 = backbone.denoise(z / share**0.5, torch.full((len(z),), sigma, dtype=z.dtype), text)
        eps = (z - share**0.5 * x0) / (1 - share) ** 0.5
        z = after**0.5 * x0 + (1 - after) ** 0.5 * eps
    return z


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_without_zetas_it_is_plain_ddim_and_decodes_nothing(make, pictures, prediction):
    backbone, images = make(prediction, torch.float64), pictures(dtype=torch.float64)
    found = walk(backbone, images, zeta1=0.0, zeta2=0.0)
    assert backbone.calls["decode"] == 0
    assert found.calls.denoiser == len(LEVELS)
    assert found.energies == {}
    torch.testing.assert_close(found.z, plain_ddim(backbone, images), rtol=1e-12, atol=1e-12)


def test_without_zetas_a_flow_path_is_eulers(make, pictures, diffusers):
    backbone, images = make("flow", torch.float64), pictures(dtype=torch.float64)
    found = walk(backbone, images, zeta1=0.0, zeta2=0.0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=list(found.sigmas))
    clean = backbone.encode(images)
    text = backbone.embed(["a photo"]).rows([0] * len(images))
    z = (1 - found.sigmas[0]) * clean + found.sigmas[0] * backbone.noise(clean.shape[1:], 0)
    for sigma, t in zip(found.sigmas, scheduler.timesteps, strict=True):
        level = torch.full((len(z),), sigma, dtype=z.dtype)
        velocity = (z - backbone.denoise(z, level, text)) / sigma
        z = scheduler.step(velocity, t, z).prev_sample
    torch.testing.assert_close(found.z, z, rtol=1e-5, atol=1e-5)


# Guidance ------------------------------------------------------------------------------------------------------------


def level_energies(backbone, images, psi, **options):
    """Each term's energy before and after its own step, computed again outside."""
    found = []
    measure = backbone.decode

    def energies(z):
        pixels = measure(z)
        return torch.stack(
            [(images - pixels).square().flatten(1).sum(1), psi.distance(psi.features(images), psi.features(pixels))]
        )

    from latent_critic.core.guidance import descent

    original = descent.move

    def watched(z, gradient, energy, zeta, **rest):
        moved = original(z, gradient, energy, zeta, **rest)
        backbone.within, inside = 0, backbone.within
        found.append((energies(z.detach()), energies(moved.detach()), energy))
        backbone.within = inside
        return moved

    return found, watched


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
@pytest.mark.parametrize(
    "options",
    [{"zeta1": 0.02, "zeta2": 0.02}, {"normalised": False, "zeta1": 0.05, "zeta2": 0.5}, {"through": "denoiser"}],
    ids=["normalised", "absolute", "through the denoiser"],
)
def test_guidance_lowers_its_own_energy_at_every_step(make, pictures, psi, monkeypatch, prediction, options):
    backbone, images = make(prediction), pictures()
    found, watched = level_energies(backbone, images, psi)
    monkeypatch.setattr("latent_critic.core.guidance.descent.move", watched)
    walk(backbone, images, psi, **{"zeta1": 0.02, "zeta2": 0.02, **options})
    assert len(found) == 2 * len(LEVELS)
    for place, (before, after, told) in enumerate(found):
        term = place % 2  # measurement, perceptual, measurement …
        torch.testing.assert_close(told, before[term], rtol=1e-4, atol=1e-6)
        assert bool((after[term] < before[term]).all()), place


@pytest.mark.parametrize("through", ["x0", "denoiser"])
@pytest.mark.parametrize("squared", [True, False])
def test_a_guided_level_follows_finite_differences(make, pictures, psi, through, squared):
    """z'' of a single level, in float64, against slopes measured on the same networks from outside."""
    backbone, images = make("v", torch.float64), pictures(1, dtype=torch.float64)
    zeta1, zeta2 = 0.03, 0.4
    options = {"timesteps": (60,), "normalised": False, "squared": squared, "through": through}
    found = walk(backbone, images, psi, zeta1=zeta1, zeta2=zeta2, **options).z
    clean, text = backbone.encode(images), backbone.embed(["a photo"])
    sigma = torch.tensor([guided_path_sigma(60)], dtype=torch.float64)
    z_t = clean + sigma * backbone.noise(clean.shape[1:], 0)

    def estimate(state):
        return backbone.denoise(state, sigma, text)

    def measurement(z):
        energy = (images - backbone.decode(z)).square().sum()
        return energy if squared else energy.sqrt()

    def perceptual(z):
        energy = psi.distance(psi.features(images), psi.features(backbone.decode(z))).sum()
        return energy if squared else energy.sqrt()

    def slopes(energy, at):
        """Central differences, of the energy at the estimate itself or as a function of the state behind it."""
        gradient, h = torch.zeros_like(at), 1e-5
        for place in range(at.numel()):
            step = torch.zeros_like(at).flatten()
            step[place] = h
            step = step.view_as(at)
            if through == "x0":
                high, low = energy(at + step), energy(at - step)
            else:  # z' = x0 minus something fixed: it moves with the state as x0 does
                shift = at - x0
                high, low = energy(estimate(z_t + step) + shift), energy(estimate(z_t - step) + shift)
            gradient.view(-1)[place] = (high - low) / (2 * h)
        return gradient

    with torch.no_grad():
        x0 = estimate(z_t)
        first = x0 - zeta1 * slopes(measurement, x0)
        second = first - zeta2 * slopes(perceptual, first)
    torch.testing.assert_close(found, second, rtol=1e-6, atol=1e-8)


def guided_path_sigma(t):
    from latent_critic.core.backbone.schedule import sigma_of_timestep

    return sigma_of_timestep(t)


def test_the_guided_latents_decode_nearer_to_the_picture(make, pictures, psi):
    backbone, images = make(), pictures()
    plain, guided = (walk(backbone, images, psi, zeta1=z, zeta2=z) for z in (0.0, 0.05))
    apart = [(backbone.decode(path.z) - images).square().mean() for path in (plain, guided)]
    assert apart[1] < apart[0]
    assert bool((guided.energies["measurement"][1:] < guided.energies["measurement"][:-1]).all())


def test_one_active_term_alone(make, pictures, psi):
    backbone, images = make(), pictures()
    measured = walk(backbone, images, None, zeta1=0.02, zeta2=0.0)
    felt = walk(backbone, images, psi, zeta1=0.0, zeta2=0.02)
    assert (list(measured.energies), list(felt.energies)) == (["measurement"], ["perceptual"])
    assert measured.calls.decoder == felt.calls.decoder == len(LEVELS)


def test_without_a_picture_the_decoded_latent_is_the_picture(make, pictures, psi):
    backbone, images = make(), pictures()
    shown = backbone.decode(backbone.encode(images))
    found, expected = (walk(backbone, images, psi, target=target) for target in (None, shown))
    assert torch.equal(found.z, expected.z)
    assert found.calls.decoder == expected.calls.decoder + 1


def test_latent_terms_decode_nothing(make, pictures):
    from latent_critic.core.perceptual.latent import LatentPsi

    backbone, images = make(), pictures()
    found = walk(backbone, images, LatentPsi(), measurement="latent", target=None)
    assert backbone.calls["decode"] == found.calls.decoder == found.calls.decoder_backward == 0
    assert (found.calls.psi, found.calls.psi_backward) == (1 + len(LEVELS), len(LEVELS))
    assert set(found.energies) == {"measurement", "perceptual"}


def test_a_latent_measurement_moves_straight_to_the_latent(make, pictures):
    backbone, images = make("eps", torch.float64), pictures(dtype=torch.float64)
    found = walk(backbone, images, None, timesteps=(60,), zeta1=0.5, zeta2=0.0, measurement="latent", normalised=False)
    torch.testing.assert_close(found.z, backbone.encode(images))  # z − ½ · 2 (z − clean)


def test_psi_of_the_model_guides_through_its_denoiser(make, pictures):
    from latent_critic.core.perceptual.ldm import LdmPsi

    backbone, images = make(), pictures()
    psi = LdmPsi(backbone, backbone.embed([""]))
    found = walk(backbone, images, psi, zeta1=0.0, zeta2=0.02)
    assert found.reasons == (None,) * 3
    assert backbone.calls["decode"] == 0
    assert backbone.calls["features"] == found.calls.psi == 1 + len(LEVELS)
    plain = walk(backbone, images, None, zeta1=0.0, zeta2=0.0)
    reference = psi.features(backbone.encode(images))
    apart = [psi.distance(psi.features(path.z), reference) for path in (found, plain)]
    assert bool((apart[0] < apart[1]).all())


def test_the_tiny_decoder_is_taken_when_asked_for(make, pictures, psi):
    backbone, images = make(tiny=True), pictures()
    walk(backbone, images, psi, decoder="tiny")
    assert (backbone.calls["decode"], backbone.calls["tiny"]) == (0, 2 * len(LEVELS))
    with pytest.raises(BadInput, match="tiny"):
        walk(make(), images, psi, decoder="tiny")


# What it costs, and what it reads ------------------------------------------------------------------------------------


def test_every_call_is_counted(make, pictures, psi):
    backbone, images = make(), pictures()
    calls = walk(backbone, images, psi).calls
    levels = len(LEVELS)
    assert (calls.denoiser, calls.decoder, calls.decoder_backward) == (levels, 2 * levels, 2 * levels)
    assert (calls.psi, calls.psi_backward, calls.denoiser_backward) == (1 + levels, levels, 0)
    assert backbone.calls == {"denoise": levels, "features": 0, "decode": 2 * levels, "tiny": 0}
    calls = walk(backbone, images, psi, through="denoiser").calls
    assert (calls.denoiser, calls.denoiser_backward) == (levels, 2 * levels)
    calls = walk(backbone, images, psi, start="inversion").calls
    assert calls.denoiser == 2 * levels


def test_without_z_the_last_forward_ends_at_its_last_tap(make, pictures, psi):
    backbone, images = make(), pictures()
    recorder, whole = (Recorder.of(backbone.family.taps[:1], mean) for _ in range(2))
    found = walk(backbone, images, psi, recorder, keep_z=False)
    assert found.z is None
    assert (backbone.calls["denoise"], backbone.calls["features"]) == (len(LEVELS) - 1, 1)
    assert found.calls.decoder == 2 * (len(LEVELS) - 1)
    walk(backbone, images, psi, whole)
    assert recorder.records.keys() == whole.records.keys()
    assert all(torch.equal(recorder.records[key].value, whole.records[key].value) for key in whole.records)
    single = walk(make(), images, psi, Recorder.of(backbone.family.taps[:1], mean), keep_z=False, timesteps=(20,))
    assert (single.calls.denoiser, single.calls.decoder, single.calls.psi) == (1, 0, 0)


@pytest.mark.parametrize("through", ["x0", "denoiser"])
@pytest.mark.parametrize("fit", [1000, 2])
def test_call_k_of_the_recorder_is_level_k(make, pictures, psi, through, fit):
    backbone, images = make(fit=fit), pictures()
    recorder = Recorder.of(backbone.family.taps, full)
    found = walk(backbone, images, psi, recorder, through=through, start="inversion")
    assert recorder.calls == len(LEVELS)
    for level, sigma in enumerate(found.sigmas):
        records = recorder.rows("mid", level)
        assert [record.key.row for record in records] == [0, 1, 2]
        assert [record.sigma for record in records] == pytest.approx([sigma] * 3)
        assert not any(record.value.requires_grad for record in records)


def test_watch_is_told_and_may_stop(make, pictures, psi):
    told = []
    walk(make(), pictures(), psi, watch=lambda done, total: told.append((done, total)))
    dones, totals = zip(*told, strict=True)
    assert set(totals) == {3 * len(LEVELS)}
    assert list(dones) == sorted(dones)
    assert dones[-1] == totals[0]
    told.clear()
    walk(make(), pictures(), None, zeta2=0.0, timesteps=(60, 0), start="inversion", watch=lambda *at: told.append(at))
    assert told[-1] == (1 + 2 + 2, 5)  # up from t = 0 in one step, two levels, two measurements

    class Stop(Exception):
        pass

    def stop(done, total):
        if done > 1:
            raise Stop

    backbone = make()
    with pytest.raises(Stop):
        walk(backbone, pictures(), psi, watch=stop)
    assert backbone.calls["denoise"] == 1
    assert backbone.within == 0


# Rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["x0", "denoiser"])
@pytest.mark.parametrize("start", ["noise", "inversion"])
def test_batch_mates_change_nothing(make, pictures, psi, through, start):
    images = pictures()
    together = walk(make(), images, psi, through=through, start=start, eta=0.5)
    for row in range(3):
        alone = walk(make(), images[row : row + 1], psi, through=through, start=start, eta=0.5)
        torch.testing.assert_close(alone.z[0], together.z[row], rtol=1e-4, atol=1e-5)
        for name, energies in alone.energies.items():
            torch.testing.assert_close(energies[:, 0], together.energies[name][:, row], rtol=1e-3, atol=1e-5)


def test_the_same_run_twice_is_bit_identical_and_seeds_are_its_own(make, pictures, psi):
    images = pictures()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = walk(make(), images, psi, eta=1.0)
    torch.manual_seed(1)
    make()
    torch.manual_seed(1)
    second = walk(make(), images, psi, eta=1.0)
    assert torch.equal(first.z, second.z)
    torch.manual_seed(1)
    backbone = make()
    torch.set_rng_state(before)
    walk(backbone, images, psi, eta=1.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.z, walk(make(), images, psi, eta=1.0, seed=7).z)


def test_adding_a_level_changes_no_other_levels_fresh_noise(make, pictures):
    """η's noise belongs to the timestep."""
    backbone, images = make(), pictures()
    drawn = []
    original = backbone.noise
    backbone.noise = lambda shape, seed: drawn.append(seed) or original(shape, seed)
    walk(backbone, images, eta=1.0, zeta1=0.0, zeta2=0.0, timesteps=(100, 20))
    few = set(drawn)
    drawn.clear()
    walk(backbone, images, eta=1.0, zeta1=0.0, zeta2=0.0, timesteps=(100, 60, 20))
    assert few < set(drawn)


def spoiling(row, how, from_call=2):
    """Spoil one row's estimate from the second call on, as a broken model might."""
    seen = []

    def spoil(x0, sigma):
        seen.append(sigma)
        if len(seen) < from_call:
            return x0
        return torch.cat([x0[:row], how(x0[row : row + 1]), x0[row + 1 :]])

    return spoil


@pytest.mark.parametrize("through", ["x0", "denoiser"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda x0: x0 * float("nan"), "NaN or infinite"),
        (lambda x0: x0 + float("inf"), "NaN or infinite"),
    ],
)
def test_a_row_that_breaks_gets_a_reason_and_the_others_every_bit(make, pictures, psi, how, reason, through):
    images = pictures()
    healthy, broken = make(), make()
    broken.spoil = spoiling(1, how)
    expected, found = walk(healthy, images, psi, through=through), walk(broken, images, psi, through=through)
    assert found.reasons[0] is None
    assert found.reasons[2] is None
    assert reason in found.reasons[1]
    for row in (0, 2):
        assert torch.equal(found.z[row], expected.z[row])
    assert torch.equal(found.z[1], healthy.encode(images)[1])
    for name, energies in found.energies.items():
        assert torch.equal(energies[:, [0, 2]], expected.energies[name][:, [0, 2]])
        assert bool((energies[1:, 1] == 0).all())


def test_an_energy_that_grows_beyond_its_bound_ends_its_row_alone(make, pictures, psi):
    images, healthy, broken = pictures(), make(), make()
    broken.spoil = spoiling(2, lambda x0: x0 - 6.0)
    expected = walk(healthy, images, psi, growth=1.05)
    found = walk(broken, images, psi, growth=1.05)
    assert found.reasons[:2] == (None, None)
    assert "grew beyond 1.05 times" in found.reasons[2]
    assert torch.equal(found.z[:2], expected.z[:2])


def test_a_zeta_without_measure_is_caught_even_at_a_single_level(make, pictures, psi):
    found = walk(make(), pictures(), psi, timesteps=(60,), zeta1=1e4)
    assert all("left the range of latents" in reason for reason in found.reasons)
    assert bool(found.z.isfinite().all())


def test_a_psi_whose_gradient_is_not_finite_is_caught(make, pictures, psi):
    class Rooted(type(psi)):
        def distance(self, a, b, weight=None):
            return super().distance(a, b).sqrt() * torch.tensor([1.0, float("nan"), 1.0])

    found = walk(make(), pictures(), Rooted(), zeta1=0.0)
    assert [reason is None for reason in found.reasons] == [True, False, True]
    assert "perceptual term's energy or gradient is not finite" in found.reasons[1]


def test_a_broken_latent_gets_a_reason_and_the_others_every_bit(make, pictures, psi):
    backbone, images = make(), pictures()
    expected = walk(backbone, images, psi)
    clean = backbone.encode(images)
    clean[1, 0, 0, 0] = float("nan")
    text = backbone.embed(["a photo"]).rows([0, 0, 0])
    found = guided_path(backbone, clean, images, GuidanceOptions(timesteps=LEVELS), psi, text)
    assert "the latent holds NaN" in found.reasons[1]
    assert torch.equal(found.z[[0, 2]], expected.z[[0, 2]])
    assert bool(found.z.isfinite().all())


# Weights, sizes, memory ----------------------------------------------------------------------------------------------


def test_a_weight_leaves_the_rest_of_the_picture_alone(make, pictures):
    backbone, images = make(), pictures()
    weight = torch.zeros(3, 1, 16, 24)
    weight[..., :8] = 1.0
    damaged = images.clone()
    damaged[..., 12:] = 0.0  # of no weight, and beyond the decoder's reach
    options = {"timesteps": (60,), "zeta2": 0.0, "normalised": False, "zeta1": 0.05}
    found = [walk(backbone, images, target=target, weight=weight, **options) for target in (images, damaged)]
    assert torch.equal(found[0].z, found[1].z)
    plain = walk(backbone, images, timesteps=(60,), zeta1=0.0, zeta2=0.0)
    change = (found[0].z - plain.z).abs().amax(dim=(0, 1, 2))
    assert bool((change[:4] > 0).all())
    assert bool((change[7:] == 0).all())


def test_within_its_weight_a_step_is_as_long_as_was_asked_for(make, pictures):
    backbone, images = make(), pictures()
    weight = torch.zeros(3, 1, 16, 24)
    weight[..., :8] = 1.0
    options = {"timesteps": (60,), "zeta2": 0.0}
    found = walk(backbone, images, weight=weight, zeta1=0.03, **options).z
    change = (found - walk(backbone, images, weight=weight, zeta1=0.0, **options).z)[..., :4]
    torch.testing.assert_close(change.square().flatten(1).mean(1).sqrt(), torch.full((3,), 0.03), rtol=1e-3, atol=0)


def test_a_weight_of_nothing_moves_nothing(make, pictures):
    from latent_critic.core.perceptual.judge import JudgePsi

    backbone, images = make(), pictures()
    found = walk(backbone, images, JudgePsi.load(), weight=torch.zeros(3, 1, 16, 24), timesteps=(60,))
    assert torch.equal(found.z, walk(backbone, images, timesteps=(60,), zeta1=0.0, zeta2=0.0).z)
    assert found.reasons == (None,) * 3


def test_what_does_not_fit_together_is_refused(make, pictures, psi):
    backbone, images = make(), pictures()
    clean, text = backbone.encode(images), backbone.embed(["a"]).rows([0, 0, 0])
    options = GuidanceOptions()
    for arguments, match in (
        ((clean[:, :3], images, options, psi, text), "latents"),
        ((clean[0], images, options, psi, text), "latents"),
        ((clean, images[..., 1:, :], options, psi, text), "multiples of 2"),
        ((clean, images[:2], options, psi, text), "pictures"),
        ((clean, images, options, None, text), "psi"),
        ((clean, images, options, psi, text.rows([0])), "conditions"),
    ):
        with pytest.raises(BadInput, match=match):
            guided_path(backbone, *arguments)
    for weight in (torch.ones(3, 1, 8, 12), -torch.ones(3, 1, 16, 24), torch.full((3, 1, 16, 24), torch.nan)):
        with pytest.raises(BadInput, match="weights"):
            guided_path(backbone, clean, images, options, psi, text, weight=weight)


@pytest.mark.parametrize("fit", [1, 2])
def test_chunks_that_memory_asks_for_change_nothing(make, pictures, psi, fit):
    images = pictures()
    whole, parts = walk(make(), images, psi), walk(make(fit=fit), images, psi)
    torch.testing.assert_close(parts.z, whole.z, rtol=1e-4, atol=1e-5)
    assert parts.calls.decoder == -(-3 // fit) * whole.calls.decoder
    assert parts.calls.denoiser == whole.calls.denoiser  # the host makes its own chunks


def test_out_of_memory_halves_the_rows_and_remembers(make, pictures, psi, caplog):
    images = pictures(4)
    whole, backbone = walk(make(), images, psi), make()
    backbone.out_of_memory_above = 2
    found = walk(backbone, images, psi)
    torch.testing.assert_close(found.z, whole.z, rtol=1e-4, atol=1e-5)
    assert backbone.rows.count(4) == 1
    assert "going on with 2" in caplog.text
    assert found.tile is None


def test_the_peak_of_memory_is_told_where_the_device_counts_it(make, pictures, psi, monkeypatch, caplog):
    from latent_critic.core.guidance.peak import PeakMemory

    caplog.set_level("INFO")
    assert walk(make(), pictures(), psi).peak_memory is None  # a CPU has no such counter
    assert "GB" not in caplog.text
    monkeypatch.setattr(PeakMemory, "bytes", lambda self: 1_230_000_000)
    assert walk(make(), pictures(), psi).peak_memory == 1_230_000_000
    assert "Guidance of 3 pictures held at most 1.23 GB on the device." in caplog.text


@pytest.fixture
def small_memory(make):
    """A backbone whose decoder fits no more cells than that."""

    def build(cells):
        backbone = make()
        original = backbone.decode

        def decode(latents, *, differentiable=False, tiny=False):
            if differentiable and latents[0, 0].numel() > cells:
                raise RuntimeError("CUDA out of memory")
            return original(latents, differentiable=differentiable, tiny=tiny)

        backbone.decode = decode
        return backbone

    return build


def test_a_picture_that_does_not_fit_goes_in_tiles(make, small_memory, pictures, psi, caplog):
    images = pictures(2, 64, 80)
    weight = torch.rand(2, 1, 64, 80, generator=torch.Generator().manual_seed(3))
    for weights in (None, weight):
        whole = walk(make(), images, psi, weight=weights)
        found = walk(small_memory(700), images, psi, weight=weights)
        assert found.tile == 20
        assert "tiles of 20 cells" in caplog.text
        # The decoder here looks two cells around: measured energies are the same, psi's edges are not.
        torch.testing.assert_close(found.energies["measurement"][0], whole.energies["measurement"][0])
        torch.testing.assert_close(found.energies["perceptual"], whole.energies["perceptual"], rtol=0.1, atol=0)
        change = (found.z - whole.z).square().mean().sqrt()
        guided = (whole.z - walk(make(), images, zeta1=0.0, zeta2=0.0).z).square().mean().sqrt()
        assert change < 0.2 * guided


def test_tiles_of_the_measurement_are_exact_for_a_local_decoder(make, small_memory, pictures):
    images = pictures(1, 64, 80)
    whole = walk(make(), images, zeta2=0.0)
    found = walk(small_memory(700), images, zeta2=0.0)
    torch.testing.assert_close(found.z, whole.z, rtol=1e-4, atol=1e-5)


def test_memory_that_fits_no_tile_is_an_error(small_memory, pictures, psi):
    with pytest.raises(RuntimeError, match="out of memory"):
        walk(small_memory(10), pictures(1, 64, 80), psi)


# Starts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_an_inversion_comes_back_to_the_latent(make, pictures, prediction):
    """More levels follow the model's path more closely."""
    backbone, images = make(prediction, torch.float64), pictures(dtype=torch.float64)
    clean = backbone.encode(images)
    apart = []
    for count in (3, 12, 48):
        levels = tuple(round(100 - 99 * place / (count - 1)) for place in range(count))
        found = walk(backbone, images, timesteps=levels, start="inversion", zeta1=0.0, zeta2=0.0)
        apart.append(float((found.z - clean).square().mean().sqrt()))
    assert apart[2] < apart[1] < apart[0]
    noise = walk(backbone, images, timesteps=levels, zeta1=0.0, zeta2=0.0)
    assert apart[2] < 0.3 * float((noise.z - clean).square().mean().sqrt())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_latents_of_half_precision_walk_in_single(make, pictures, psi, dtype):
    backbone, images = make(), pictures()
    text = backbone.embed(["a photo"]).rows([0, 0, 0])
    clean = backbone.encode(images).to(dtype)
    found = guided_path(backbone, clean, images, GuidanceOptions(timesteps=LEVELS), psi, text)
    expected = guided_path(backbone, clean.float(), images, GuidanceOptions(timesteps=LEVELS), psi, text)
    assert found.z.dtype == torch.float32
    assert torch.equal(found.z, expected.z)


def test_it_works_inside_inference_mode(make, pictures, psi):
    """Everything that autograd may save is made ordinary on the way."""
    images = pictures()
    backbone = make()
    expected = walk(make(), images, psi, weight=torch.ones(3, 1, 16, 24))
    with torch.inference_mode():
        inside = images.clone()
        assert inside.is_inference()
        found = walk(backbone, inside, psi, weight=torch.ones(3, 1, 16, 24))
    assert torch.equal(found.z, expected.z)
