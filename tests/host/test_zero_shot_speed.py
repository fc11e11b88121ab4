"""The speed rows on a loaded model: the command line's own process, and the bare loop's call counts."""

import pytest
import torch

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_the_process_beside_a_comfyui_gives_its_rows(comfyui_folder):
    from latent_critic.core.benchmark.speed_comfyui import comfyui_rows

    rows = {row.name: row for row in comfyui_rows(comfyui_folder, 1, side=64)}
    assert len(rows) == 18
    assert rows["lgdm: over its bare calls"].limit == 1.05
    assert rows["guidance: over its bare calls"].limit == 1.05
    assert "3 noise levels of 7 taps read of 2 of 2 images" in rows["probe: over sampling without it"].detail
    assert "1 denoiser forward of 4 rows" in rows["genziqa, fast (2 levels): over its bare calls"].detail
    assert "1 denoiser forward of 16 rows" in rows["genziqa, published (8 levels): over its bare calls"].detail
    assert 0 < rows["genziqa: fast over published"].ratio < 1
    assert rows["genziqa: linear in images"].ratio > 0
    assert "1 row with 1485 text tokens" in rows["dp_iqa: over its bare calls"].detail
    assert rows["dp_iqa: over its bare calls"].limit == 1.05
    assert rows["judge: over sampling the image"].ratio > 0
    assert rows["zero_shot: bytes of the user's model"].ratio == 1.0
    assert rows["features: end at the middle block over whole"].ratio < 0.9


def test_the_bare_loop_makes_the_calls_that_it_states(pack, tiny, monkeypatch):
    """One VAE encode and one 12-row forward: exactly what the scorer asks of ComfyUI for one image."""
    speed = pack("core.benchmark.speed_comfyui")
    model, clip, vae = tiny.model("sd15"), tiny.clip("sd15"), tiny.vae()
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone(model, clip, vae)
    zero_shot = pack("core.methods.zero_shot")
    scorer = zero_shot.ZeroShot(backbone, options=zero_shot.ZeroShotOptions(side=64))
    image = torch.rand(3, 64, 64)
    calls = []
    network = model.model.diffusion_model
    network.register_forward_pre_hook(lambda module, args: calls.append(("forward", args[0].shape[0])))
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: calls.append(("encode", pixels.shape[0])) or encode(pixels))
    scorer.score([image])
    of_scorer, calls[:] = list(calls), []
    speed.Bare(model, vae, backbone.embed(["a", "b", "c", "d"]).tokens).run(image)
    assert calls == of_scorer == [("encode", 1), ("forward", 12)]


@pytest.mark.parametrize("setting", ["FAST", "PUBLISHED"])
def test_genziqas_bare_loop_makes_the_calls_that_it_states(pack, tiny, monkeypatch, setting):
    """One VAE encode and one forward of 2 prompts × 2 or 8 levels; both prompts are embedded once."""
    speed = pack("core.benchmark.speed_genziqa")
    model, clip, vae = tiny.model("sd15"), tiny.clip("sd15"), tiny.vae()
    backbone = pack("core.hosts.comfyui.adaptable").AdaptableComfyBackbone(model, clip, vae)
    settings = pack("core.methods.genziqa_settings")
    levels = getattr(settings, setting)
    head = pack("core.methods.genziqa_head").untrained(backbone, settings.GenzSettings(timesteps=levels, side=64))
    scorer = pack("core.methods.genziqa").GenzIQA(backbone, head)
    image = torch.rand(3, 64, 64)
    calls = []
    network = model.model.diffusion_model
    network.register_forward_pre_hook(lambda module, args: calls.append(("forward", args[0].shape[0])))
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: calls.append(("encode", pixels.shape[0])) or encode(pixels))
    scorer.score([image])
    of_scorer, calls[:] = list(calls), []
    speed.Bare(model, vae, backbone.embed_soft(head.prompts).tokens, [0.2] * len(levels)).run(image)
    assert calls == of_scorer == [("encode", 1), ("forward", 2 * len(levels))]


def test_lgdms_bare_loop_makes_the_calls_that_it_states(pack, tiny, monkeypatch):
    """One encode, two forwards (the scorer's last one cut), two decodes at the first level, psi of both."""
    speed = pack("core.benchmark.speed_lgdm")
    model, clip, vae = tiny.model("sd15"), tiny.clip("sd15"), tiny.vae()
    backbone = pack("core.hosts.comfyui.backbone").ComfyBackbone(model, clip, vae)
    psi = pack("core.perceptual.judge").JudgePsi.load()
    features = speed.features_of(backbone, psi, 64)
    scorer = pack("core.methods.lgdm").Lgdm(backbone, speed.random_head(features), psi)
    image = torch.rand(3, 64, 64)
    backbone.embed([""])
    calls = []

    def note(owner, name, word):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **rest: calls.append(word) or plain(*args, **rest))

    model.model.diffusion_model.register_forward_pre_hook(lambda module, args: calls.append("forward"))
    note(vae, "encode", "encode")
    note(vae.first_stage_model, "decode", "decode")
    note(psi, "features", "psi")
    scorer.score([image])
    of_scorer, calls[:] = sorted(calls), []
    speed.BareLgdm(model, vae, psi, backbone.embed([""]).tokens).score(image)
    assert sorted(calls) == of_scorer == sorted(["encode", "forward", "forward", "decode", "decode", "psi", "psi"])
