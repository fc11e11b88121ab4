"""Tiny pictures and a tiny architecture: real training, a few seconds."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_critic.core.data.rated import RatedImage, RatedSet
from PIL import Image
from safetensors.torch import load_file

_FINDER = Path(__file__).resolve().parents[3] / ".ci" / "comfyui.py"
#: torchvision's binary may not fit torch on a machine without a GPU; see tests/conftest.py.
_START = """
import importlib.util
spec = importlib.util.spec_from_file_location("finder", {finder!r})
finder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finder)
kept = finder.declare_torchvision_ops()
{first}
from latent_critic.core.cli.main import main
raise SystemExit(main())
"""
_LAUNCH = (
    "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip


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


@pytest.fixture
def alone_and_launched(tiny_folder, rated, tmp_path):
    """A training command in one process and, by ``accelerate launch``, in two.

    `alone_and_launched(kind, *options, first="", on=…)` gives for each of both what was told, the state's tensors and
    the head's file; `first` is Python to run before the command, `on` what it is given to learn from (rated pictures
    and a model).
    """
    table, script = tmp_path / "rated.csv", tmp_path / "start.py"
    table.write_text("".join(f"{image.path},{image.mos / 20:.3f},{image.group}\n" for image in rated.images))
    settings = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    usual = ("--data", f"csv={table}:0:5", "--model", str(tiny_folder))

    def one(kind, name, before, options):
        run, out = tmp_path / name, tmp_path / f"{name}.safetensors"
        command = [
            sys.executable, *before, str(script), "train", kind, "--out", str(out), "--run", str(run), *options,
        ]  # fmt: skip
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr, load_file(run / "state.safetensors"), out

    def both(kind, *options, first="", on=usual):
        options = (*on, *options)
        script.write_text(_START.format(finder=str(_FINDER), first=first))
        alone = one(kind, "alone", (), options)
        return alone, one(kind, "launched", ("-m", *_LAUNCH), (*options, "--accelerate", "--minutes", "9"))

    return both


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
