"""The ladder of properties that every psi keeps."""

from dataclasses import replace

import pytest
import torch
from latent_critic.core.data.distortions import distort
from latent_critic.core.errors import BadInput
from latent_critic.core.perceptual.ldm import LdmPsi
from latent_critic.core.perceptual.maps import unit

from_names = pytest.mark.parametrize("name", ["judge", "lpips_vgg16", "lpips_alexnet", "dists", "latent", "ldm"])


def between(psi, given, first, second, weight=None):
    return psi.distance(psi.features(given(psi, first)), psi.features(given(psi, second)), weight)


@from_names
def test_a_picture_is_at_distance_zero_from_itself(name, build, given, photographs):
    psi = build(name)
    assert between(psi, given, photographs, photographs.clone()).tolist() == [0.0] * 3


@from_names
def test_distances_are_symmetric_and_above_zero(name, build, given, photographs):
    psi = build(name)
    other = photographs.flip(0)
    found = between(psi, given, photographs, other)
    torch.testing.assert_close(found, between(psi, given, other, photographs))
    assert bool((found[[0, 2]] > 0).all())
    assert found.shape == (3,)


@from_names
@pytest.mark.parametrize("kind", ["white_noise", "gaussian_blur", "jpeg"])
def test_growing_damage_grows_the_distance(name, kind, build, given, photographs):
    psi = build(name)
    steps = []
    for image in photographs:
        ladder = torch.stack([distort(image, kind, severity) for severity in range(6)])
        steps += between(psi, given, ladder, image.expand_as(ladder)).diff().tolist()
    assert sum(step > 0 for step in steps) >= 0.95 * len(steps), steps


@from_names
def test_batch_mates_change_nothing(name, build, given, photographs):
    psi = build(name)
    together = between(psi, given, photographs, photographs.flip(2))
    for row in range(3):
        alone = between(psi, given, photographs[row : row + 1], photographs[row : row + 1].flip(2))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-7)


@from_names
def test_it_is_deterministic_over_two_instances(name, build, given, photographs):
    first, second = build(name), build(name)
    assert first.identity == second.identity
    assert torch.equal(
        between(first, given, photographs, photographs.flip(3)),
        between(second, given, photographs, photographs.flip(3)),
    )


@from_names
def test_double_precision_agrees(name, build, given, photographs):
    single = between(build(name), given, photographs, photographs.flip(3))
    double = build(name, torch.float64)
    found = between(double, given, photographs.double(), photographs.double().flip(3))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), single, rtol=1e-4, atol=1e-6)


@from_names
def test_half_precision_is_near(name, build, given, photographs):
    """Kinks of the network's ReLUs aside, bf16 keeps three digits."""
    single = between(build(name), given, photographs, photographs.flip(3))
    half = photographs.bfloat16()
    found = between(build(name, torch.bfloat16), given, half, half.flip(3))
    torch.testing.assert_close(found.float(), single, rtol=0.05, atol=1e-3)


@from_names
def test_its_gradient_is_that_of_finite_differences(name, build, given, photographs):
    psi = build(name, torch.float64)
    x = given(psi, photographs[:1].double()).detach()
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x + 0.02 * step.roll(1, -1)  # away from ties
    reference = psi.features(given(psi, photographs[1:2].double()))

    def energy(at):
        return psi.distance(psi.features(at), reference).sum()

    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(leaf), leaf)
    h = 1e-9  # ReLUs make kinks: small enough that hardly one is crossed
    found = (energy(x + h * step) - energy(x - h * step)) / (2 * h)
    torch.testing.assert_close((gradient * step).sum(), found, rtol=1e-3, atol=1e-9)


@from_names
def test_the_gradient_at_zero_distance_is_zero(name, build, given, photographs):
    psi = build(name)
    x = given(psi, photographs)
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(psi.distance(psi.features(leaf), psi.features(x)).sum(), leaf)
    assert bool((gradient == 0).all())


@from_names
def test_black_pictures_have_finite_gradients(name, build, given, photographs):
    psi = build(name)
    leaf = given(psi, torch.zeros_like(photographs)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        psi.distance(psi.features(leaf), psi.features(given(psi, photographs))).sum(), leaf
    )
    assert bool(gradient.isfinite().all())


@from_names
def test_a_weight_decides_which_places_count(name, build, given, photographs):
    psi = build(name)
    damaged = photographs.clone()
    damaged[..., 48:] = damaged[..., 48:].flip(2)
    left, right = torch.zeros(3, 1, 64, 96), torch.zeros(3, 1, 64, 96)
    left[..., :16], right[..., 80:] = 1.0, 1.0
    assert bool(
        (between(psi, given, photographs, damaged, left) < between(psi, given, photographs, damaged, right)).all()
    )
    even = between(psi, given, photographs, damaged, torch.full((3, 1, 64, 96), 0.5))
    torch.testing.assert_close(even, between(psi, given, photographs, damaged), rtol=1e-3, atol=1e-6)
    assert between(psi, given, photographs, damaged, torch.zeros(3, 1, 64, 96)).tolist() == [0.0] * 3


@from_names
def test_what_is_no_picture_is_refused(name, build, given, photographs):
    psi = build(name)
    x = given(psi, photographs)
    others = [] if name == "latent" else [x[:, :2]]  # it takes any number of channels
    for bad in (x[0], (x * 255).to(torch.uint8), x[..., :1, :0], *others):
        with pytest.raises(BadInput):
            psi.features(bad)
    with pytest.raises(BadInput, match="equal shapes"):
        psi.distance(psi.features(x), psi.features(x[..., :-8, :]))


def test_names_spaces_and_identities_tell_them_apart(build):
    psis = [build(name) for name in ("judge", "lpips_vgg16", "lpips_alexnet", "dists", "latent", "ldm")]
    assert len({psi.identity for psi in psis}) == 6
    assert {psi.name for psi in psis} == {"judge", "lpips", "dists", "latent", "ldm"}
    assert {psi.name for psi in psis if psi.space == "latent"} == {"latent", "ldm"}
    assert [psi.name for psi in psis if psi.through_denoiser] == ["ldm"]


def test_unit_vectors_have_length_1_in_fp16_too():
    for size in (1e-3, 1.0, 8.0, 1e4):
        length = unit(torch.full((1, 1280, 2, 2), size).half()).square().sum(1)
        torch.testing.assert_close(length, torch.ones_like(length), rtol=1e-3, atol=0)
    assert not unit(torch.zeros(1, 8, 2, 2).half()).any()


def test_features_whose_squares_fp16_cannot_hold_keep_distance_and_gradient(make, given, photographs):
    backbone = make("eps")
    psi, original = LdmPsi(backbone, backbone.embed([""])), backbone.features
    latents = given(psi, photographs)

    def measured():
        leaf = latents.clone().requires_grad_(True)
        distance = psi.distance(psi.features(leaf), psi.features(latents.flip(0)))
        return distance.detach(), torch.autograd.grad(distance.sum(), leaf)[0]

    def loud(z_t, sigma, conditioning, recorder):
        original(z_t, sigma, conditioning, recorder)
        for key, record in list(recorder.records.items()):
            value = 300.0 * record.value / record.value.detach().abs().max()
            recorder.records[key] = replace(record, value=value.half())

    distance, gradient = measured()
    backbone.features = loud
    found, slope = measured()
    torch.testing.assert_close(found, distance, rtol=0.01, atol=1e-4)
    assert float((slope - gradient).norm()) < 0.05 * float(gradient.norm())
