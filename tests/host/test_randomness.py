"""Patches that draw random numbers in a forward: the same scores every time, and the user's streams untouched."""

import importlib
import random

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.host


def token_merging(model):
    return _node("nodes_tomesd", "TomePatchModel", model, 0.5)


def tiling(model):
    return _node("nodes_hypertile", "HyperTile", model, 32, 8, 1, False)


def other_streams(model):
    """A patch that draws from Python and NumPy."""
    patched = model.clone()
    patched.set_model_attn1_patch(lambda q, k, v, options: (q * (1 + random.random() + np.random.rand()), k, v))
    return patched


def _node(module, name, *arguments):
    made = getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(*arguments)
    return made[0] if isinstance(made, tuple) else made.args[0]


PATCHES = [token_merging, tiling, other_streams]


@pytest.fixture
def scorer(comfyui, tiny_model, make_backbone):
    """Builder: patch → zero_shot on a tiny model that carries it."""
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    def build(patch):
        options = ZeroShotOptions(side=256, timesteps=(57,))  # HyperTile cuts nothing smaller
        return ZeroShot(make_backbone(model=patch(tiny_model("sd15"))), options=options)

    return build


def pictures(count):
    return list(torch.rand(count, 3, 256, 256, generator=torch.Generator().manual_seed(3)))


def streams():
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


@pytest.mark.parametrize("patch", PATCHES)
def test_scores_are_the_same_from_any_state_of_the_streams(scorer, patch):
    judge, found = scorer(patch), []
    for seed in range(4):
        torch.manual_seed(seed), random.seed(seed), np.random.seed(seed)
        found.append(judge.score(pictures(1)).values())
    assert found.count(found[0]) == 4
    assert scorer(patch).score(pictures(1)).values() == found[0]


@pytest.mark.parametrize("patch", PATCHES)
def test_batch_mates_draw_nothing_from_each_other(scorer, patch):
    judge = scorer(patch)
    together = judge.score(pictures(2)).values()
    assert together == pytest.approx([judge.score([image])[0].value for image in pictures(2)], abs=1e-4)


@pytest.mark.parametrize("patch", PATCHES)
def test_the_patch_matters_and_the_users_streams_stay(scorer, patch):
    patched, before = scorer(patch), streams()
    value = patched.score(pictures(1))[0].value
    assert streams() == before
    assert value != scorer(lambda model: model).score(pictures(1))[0].value


def test_the_streams_come_back_after_an_error(comfyui):
    from latent_critic.core.hosts.comfyui.randomness import repeatable

    before = streams()

    def draw_and_fail():
        with repeatable(torch.device("cpu")):
            torch.rand(3), random.random(), np.random.rand()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        draw_and_fail()
    assert streams() == before


def test_two_blocks_draw_the_same(comfyui):
    from latent_critic.core.hosts.comfyui.randomness import repeatable

    def draw():
        with repeatable(torch.device("cpu")):
            return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()

    assert draw() == draw()


def test_context_windows_over_rows_change_nothing(comfyui, tiny_model, make_backbone, call):
    windows = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode
    settings = {"context_length": 2, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1}
    model = tiny_model("sd15")
    patched = windows.execute(model, **settings, closed_loop=False, fuse_method="pyramid", dim=0).args[0]
    plain, other = make_backbone(model=model), make_backbone(model=patched)
    assert torch.equal(other.denoise(*call(other, rows=5)), plain.denoise(*call(plain, rows=5)))
    assert "context_handler" in patched.model_options
    assert any("ContextWindows_prepare_sampling" in keys for keys in patched.wrappers.values())
