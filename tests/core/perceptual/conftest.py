"""Every psi with something real behind it: the shipped judge, random ImageNet networks, a tiny denoiser."""

import pytest
import torch
from latent_critic.core.nets.imagenet import ImageNetMaps
from latent_critic.core.perceptual.dists import DistsPsi
from latent_critic.core.perceptual.judge import JudgePsi
from latent_critic.core.perceptual.latent import LatentPsi
from latent_critic.core.perceptual.ldm import LdmPsi
from latent_critic.core.perceptual.lpips import LpipsPsi
from skimage import data
from torch.nn import functional as F

NAMES = ("judge", "lpips_vgg16", "lpips_alexnet", "dists", "latent", "ldm")


def random_network(name, hanning=False):
    """An ImageNet network with seeded weights of a size that keeps its maps alive."""
    network = ImageNetMaps(name, hanning=hanning)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = (2.0 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.05
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    return network.eval().requires_grad_(False)


@pytest.fixture
def build(make):
    """`build(name, dtype)` → a psi whose own networks are of that dtype."""

    def one(name, dtype=torch.float32):
        if name == "judge":
            psi = JudgePsi.load()
        elif name == "dists":
            psi = DistsPsi(random_network("vgg16", hanning=True), "random")
        elif name == "latent":
            psi = LatentPsi()
        elif name == "ldm":
            backbone = make("eps", dtype)
            psi = LdmPsi(backbone, backbone.embed([""]))
        else:
            backbone = name.removeprefix("lpips_")
            psi = LpipsPsi(random_network(backbone), "random", backbone)
        for network in psi.networks:
            network.to(dtype)
        return psi

    return one


@pytest.fixture(scope="session")
def photographs():
    """Three photographs [3, 3, 64, 96] in [0, 1]."""
    found = []
    for picture in (data.astronaut(), data.coffee(), data.chelsea()):
        image = torch.from_numpy(picture[:300, :400].copy()).permute(2, 0, 1)[None].float() / 255
        found.append(F.interpolate(image, (64, 96), mode="bilinear", antialias=True))
    return torch.cat(found)


@pytest.fixture
def given(build, photographs):
    """`given(psi, images)` → what this psi takes: the pixels, or latents made of them without any network."""

    def turn(psi, images):
        if psi.space == "pixels":
            return images
        low = F.avg_pool2d(images * 2 - 1, 2)
        return torch.cat([low, low.mean(1, keepdim=True)], 1)

    return turn
