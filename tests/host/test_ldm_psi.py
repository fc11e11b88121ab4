"""psi of the embedded model, trained weights in a real ComfyUI: the ladder that tests/core keeps on random ones."""

import pytest
import torch
from latent_critic.core.data.distortions import distort
from skimage import data
from torch.nn import functional as F

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def backbone(comfyui):
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return ComfyBackbone(embedded.load_model(), embedded.load_clip(), embedded.load_vae())


@pytest.fixture(scope="module")
def psi(backbone):
    from latent_critic.core.perceptual.ldm import LdmPsi

    return LdmPsi(backbone, backbone.embed([""]))


@pytest.fixture(scope="module")
def photographs():
    found = [torch.from_numpy(picture[:300, :300].copy()) for picture in (data.astronaut(), data.coffee())]
    return F.interpolate(torch.stack(found).permute(0, 3, 1, 2).float() / 255, (96, 96), mode="area")


def test_it_reads_one_tap_per_coarse_scale(psi, backbone):
    features = [tap for tap in backbone.family.taps if tap.kind == "feature"]
    assert [tap.stride for tap in psi.taps] == sorted({tap.stride for tap in features} - {1}, reverse=True)


@pytest.mark.parametrize("kind", ["white_noise", "gaussian_blur", "jpeg"])
def test_growing_damage_grows_the_distance(kind, psi, backbone, photographs):
    steps = []
    for image in photographs:
        latents = backbone.encode(torch.stack([distort(image, kind, severity) for severity in range(6)]))
        features = psi.features(latents)
        clean = tuple(values[:1].expand_as(values) for values in features)
        steps += psi.distance(features, clean).diff().tolist()
    assert sum(step > 0 for step in steps) >= 0.95 * len(steps), steps


def test_it_is_zero_for_equal_latents_and_knows_no_batch(psi, backbone, photographs):
    latents = backbone.encode(photographs)
    together = psi.features(latents)
    # A convolution of another batch size may round otherwise; the same batch gives the same bits.
    assert psi.distance(together, psi.features(latents.clone())).tolist() == [0.0, 0.0]
    alone = psi.features(latents[1:])
    apart = psi.distance(tuple(values[1:] for values in together), alone)
    assert float(apart) < 1e-6 * float(psi.distance(together, tuple(values.flip(0) for values in together))[0])


def test_its_gradient_is_that_of_finite_differences(psi, backbone, photographs):
    latents = backbone.encode(photographs)
    reference = tuple(values[:1] for values in psi.features(latents.flip(0)))
    step = backbone.noise(latents[:1].shape, seed=4)
    with backbone.gradients(decoder=False, denoiser=True):
        leaf = latents[:1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(psi.distance(psi.features(leaf), reference).sum(), leaf)

    def energy(at):
        return float(psi.distance(psi.features(at), reference).double())

    h = 1e-2  # single precision: the curvature is small beside the rounding of smaller steps
    found = (energy(latents[:1] + h * step) - energy(latents[:1] - h * step)) / (2 * h)
    assert float((gradient * step).sum()) == pytest.approx(found, rel=0.02)
