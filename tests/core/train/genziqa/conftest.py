"""The modules of GenzIQA's training, a tiny model that carries gradients, and requests of small runs."""

import importlib
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def genziqa(diffusers):
    names = ("genziqa", "genziqa_request", "genziqa_data", "genziqa_forward", "genziqa_measure", "genziqa_world",
             "genziqa_latents")  # fmt: skip
    return SimpleNamespace(**{name: importlib.import_module(f"latent_critic.core.train.{name}") for name in names})


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    """The tiny model as a backbone with gradients."""
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    return DiffusersBackbone(load_pipeline(str(tiny_folder)))


@pytest.fixture
def request_for(genziqa, rated, tmp_path):
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    def make(name="run", **changes):
        given = {
            "data": (rated,), "out": tmp_path / f"{name}.safetensors", "run": tmp_path / name, "context": 2, "rank": 2,
            "settings": GenzSettings(timesteps=(33, 69), side=64, bias_weight=8.0), "batch": 4, "rate": 1e-2,
            "steps": 4, "validate_every": 2, "validate_on": 6, "calibrate_on": 8, "share": 0.3, "content": False,
        }  # fmt: skip
        return genziqa.genziqa_request.GenzRequest(**{**given, **changes})

    return make
