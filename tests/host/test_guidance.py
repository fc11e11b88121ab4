"""Guided paths on real ComfyUI models: the embedded one here, tiny ones of every family below."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def judge_psi():
    from latent_critic.core.perceptual.judge import JudgePsi

    return JudgePsi.load()


FAMILIES = ("sd15", "sd15_three_scales", "sd20", "sd20_v", "sdxl")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guided_path_in_inference_mode_leaves_the_model_alone(family, tiny, judge_psi, weights_of, comfyui):
    from latent_critic.core.guidance.options import GuidanceOptions
    from latent_critic.core.guidance.path import guided_path
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    options = GuidanceOptions(timesteps=(100, 40))

    def walk(backbone):
        text = backbone.embed([""]).rows([0, 0])
        return guided_path(backbone, backbone.encode(images), images, options, judge_psi, text)

    plain = walk(ComfyBackbone(tiny.model(family), tiny.clip(family), tiny.vae()))
    with torch.inference_mode():  # as the executor runs nodes: weights loaded here are inference tensors
        model = tiny.model(family)
        before = weights_of(model)
        found = walk(ComfyBackbone(model, tiny.clip(family), tiny.vae()))
        after = weights_of(model)
    assert found.reasons == (None, None)
    torch.testing.assert_close(found.z, plain.z, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (found.calls.denoiser, found.calls.decoder, found.calls.decoder_backward) == (2, 4, 4)
