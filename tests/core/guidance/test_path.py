"""The guided path on tiny real networks."""

import itertools

import pytest
import torch
from latent_critic.core.guidance.options import GuidanceOptions
from latent_critic.core.guidance.path import guided_path

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
