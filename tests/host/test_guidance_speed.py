"""The bare loop of the guidance rows makes the calls that it states, which are those of a guided path."""

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def calls(tiny):
    """(MODEL, CLIP, VAE, list of what ran): forwards and backwards, counted at the modules."""
    model, clip, vae = tiny.model("sd15"), tiny.clip("sd15"), tiny.vae()
    found = []

    def note(name):
        def forward(module, args, out):
            found.append(name)
            if out.requires_grad:
                out.register_hook(lambda gradient: found.append(f"{name} back"))

        return forward

    model.model.diffusion_model.register_forward_hook(note("denoiser"))
    vae.first_stage_model.decoder.register_forward_hook(note("decoder"))
    return model, clip, vae, found


def test_the_bare_loop_makes_the_calls_of_a_guided_path(calls):
    from latent_critic.core.benchmark.speed_guidance import _LEVELS, BareGuidance
    from latent_critic.core.guidance.options import GuidanceOptions
    from latent_critic.core.guidance.path import guided_path
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.perceptual.judge import JudgePsi

    model, clip, vae, found = calls
    backbone, psi = ComfyBackbone(model, clip, vae), JudgePsi.load()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    clean, text = backbone.encode(image), backbone.embed([""])
    seen = []
    psi.networks[0].register_forward_hook(lambda module, args, out: seen.append(out[0].requires_grad))
    path = guided_path(backbone, clean, image, GuidanceOptions(timesteps=_LEVELS), psi, text)
    guided, guided_psi, seen[:], found[:] = sorted(found), list(seen), [], []
    BareGuidance(model, vae, psi, text.tokens).run(clean, image)
    assert sorted(found) == guided == ["decoder"] * 4 + ["decoder back"] * 4 + ["denoiser"] * 2
    assert seen == guided_psi == [False, True, True]
    counted = path.calls
    assert (counted.denoiser, counted.decoder, counted.decoder_backward) == (2, 4, 4)
    assert (counted.psi, counted.psi_backward) == (3, 2)
    found.clear()
    BareGuidance(model, vae, psi, text.tokens).forwards(clean)
    assert found == ["denoiser"] * 2


def test_the_rows_can_be_measured(tiny):
    from latent_critic.core.benchmark.speed_guidance import guidance_rows

    rows = guidance_rows(tiny.model("sd15"), tiny.clip("sd15"), tiny.vae(), repeats=1, side=64)
    assert [row.name for row in rows] == [
        "guidance: over its bare calls",
        "guidance: linear in images",
        "guidance: without terms over its forwards",
    ]
    assert all(row.ratio > 0 for row in rows)
