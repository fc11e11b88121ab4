"""Tiny pictures and a tiny architecture: real training, a few seconds."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_critic.core.data.rated import RatedImage, RatedSet
from PIL import Image


@pytest.fixture(scope="session")
def ldm(diffusers):
    """The modules of the training package, imported once diffusers can be."""
    names = ("autoencoder", "bundle", "captions", "denoiser", "loop", "models", "pictures", "run", "settings", "state")
    root = "latent_critic.core.train.ldm"
    return SimpleNamespace(**{name: importlib.import_module(f"{root}.{name}") for name in names})


@pytest.fixture(scope="session")
def sizes(ldm):
    return ldm.settings.Architecture(
        autoencoder_width=16, unet_channels=(32, 64), text_width=32, text_layers=1, embedding_rank=4, native_size=64
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Twelve pictures of soft colour fields with edges."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    down, right = np.mgrid[0:80, 0:96] / 80
    for place in range(12):
        a, b, c = generator.uniform(-3, 3, (3, 3, 1, 1))
        field = np.sin(a * down + b * right + c) * 0.4 + 0.5 + 0.2 * (right + down * generator.uniform() > 1)
        pixels = (field.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"field_{place}.png")
    return folder


@pytest.fixture
def request_for(ldm, sizes, pictures):
    """`request_for(run, steps=…)` → a request of a tiny run."""
    small = {
        "size": 32,
        "batch": 2,
        "pool": 4,
        "pool_steps": 2,
        "shallow": 1,
        "coarse": 2,
        "minutes": 5,
        "architecture": sizes,
    }

    def make(run, **settings):
        return ldm.settings.Request(pictures=pictures, run=run, **(small | settings))

    return make


@pytest.fixture(scope="session")
def tiny_folder(ldm, sizes, tmp_path_factory):
    """A random tiny model in a folder, in diffusers' layout."""
    from latent_critic.core.nets import critic_ldm

    folder = tmp_path_factory.mktemp("model")
    record = {"autoencoder": {"steps": 0}, "denoiser": {"steps": 0}}
    networks = ldm.models.build(sizes, seed=0)
    ldm.bundle.write_bundle(networks, folder, critic_ldm.read_merges(critic_ldm.SHIPPED), record)
    return folder


@pytest.fixture(scope="session")
def rated(tmp_path_factory):
    """40 pictures of two sizes whose rating is their contrast; groups of two."""
    folder = tmp_path_factory.mktemp("rated")
    draw = np.random.default_rng(0)
    images = []
    for place in range(40):
        contrast = draw.uniform(0.05, 1.0)
        field = draw.uniform(-1, 1, (8, 8 if place % 4 else 12, 3)) * contrast
        picture = Image.fromarray(((field * 0.5 + 0.5) * 255).astype(np.uint8))
        picture.resize((field.shape[1] * 8, 64), Image.Resampling.BICUBIC).save(folder / f"{place}.png")
        images.append(RatedImage(folder / f"{place}.png", 100.0 * contrast, str(place // 2), "all"))
    return RatedSet("contrasts", tuple(images))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
