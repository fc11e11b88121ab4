"""Fixtures of the host tests: backbones of tiny models, as the installed package sees them."""

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
