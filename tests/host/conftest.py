"""Fixtures of the host tests: backbones of tiny models, as the installed package sees them."""

import runpy
from pathlib import Path

import pytest
import torch


@pytest.fixture
def make_backbone(comfyui, tiny_model, tiny_clip, tiny_vae):
    """`make_backbone(family)` → a ComfyBackbone with a fitting CLIP and VAE; `model=` uses a MODEL you have."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    def make(family="sd15", model=None, seed=0):
        return ComfyBackbone(model or tiny_model(family, seed), tiny_clip(family), tiny_vae(0))

    return make


@pytest.fixture
def call():
    """Arguments of one denoiser call: `call(backbone, rows=3, h=8, w=12)` → (z_t, sigma, conditioning)."""

    def arguments(backbone, rows=3, h=8, w=12, prompts=("a good photo", "a bad photo")):
        z = backbone.noise((rows, 4, h, w), seed=11)
        sigma = torch.linspace(0.3, 2.0, rows)
        z_t = 0.2 * z + sigma[:, None, None, None] * backbone.noise(z.shape, seed=12)
        return z_t, sigma, backbone.embed(prompts).rows([row % len(prompts) for row in range(rows)])

    return arguments


@pytest.fixture
def weights_of(comfyui):
    """A bit-exact copy of a MODEL's parameters and buffers, as bytes."""

    def copy(patcher):
        state = patcher.model.state_dict()
        return {name: value.contiguous().reshape(-1).view(torch.uint8).clone() for name, value in state.items()}

    return copy


@pytest.fixture
def racing(comfyui, monkeypatch):
    """Best Of N's rooms in the host and the helpers of racing.py, under one name."""
    monkeypatch.setattr("comfy.utils.PROGRESS_BAR_ENABLED", False)
    helpers = runpy.run_path(str(Path(__file__).with_name("racing.py")))
    return helpers["bench"](comfyui)


@pytest.fixture
def words(tiny_clip):
    """Conditioning of a text for a family."""

    def encode(text, family="sd15"):
        clip = tiny_clip(family)
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    return encode


@pytest.fixture
def counted(tiny_model):
    """A MODEL and the rows that its network really computes, counted by a hook inside it."""

    def make(family="sd15", seed=0):
        model, rows = tiny_model(family, seed), []
        model.model.diffusion_model.register_forward_pre_hook(
            lambda module, args, named: rows.append(len(args[0])), with_kwargs=True
        )
        return model, rows

    return make
