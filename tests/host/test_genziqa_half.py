"""GenzIQA where half precision would overflow, and on the embedded model in the host that users have."""

from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def genziqa(comfyui):
    from latent_critic.core.hosts.comfyui.adaptable import AdaptableComfyBackbone
    from latent_critic.core.methods.genziqa import GenzIQA
    from latent_critic.core.methods.genziqa_head import untrained
    from latent_critic.core.methods.genziqa_settings import GenzSettings

    def make(model, clip, vae, taps=None, random_up=False, **settings):
        backbone = AdaptableComfyBackbone(model, clip, vae)
        head = untrained(backbone, GenzSettings(**{"timesteps": (57,), "side": 64, **settings}), context=4, rank=2)
        if random_up:  # an untrained LoRA's up is zero, which changes nothing
            generator = torch.Generator().manual_seed(2)
            for _, up in head.lora.layers.values():
                up.normal_(0.0, 0.05, generator=generator)
        return GenzIQA(backbone, replace(head, taps=taps or head.taps))

    return make


def pictures(count=2):
    return list(torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_half_precision_stays_near(genziqa, tiny_model, tiny_clip, tiny_vae, family, dtype):
    """LoRA and the noise-error bias included, within .05 of fp32: a few roundings of bf16 on logits of order 1."""

    def scored(kept, **rest):
        scorer = genziqa(tiny_model(family, 0, kept), tiny_clip(family), tiny_vae(0), bias_weight=1.0, **rest)
        return scorer.score(pictures())

    exact, half = (scored(kept, random_up=True) for kept in (torch.float32, dtype))
    plain = scored(torch.float32)
    assert max(abs(a - b) for a, b in zip(exact.values(), plain.values(), strict=True)) > 1e-4
    assert any(abs(score.attributes["bias"]) > 1e-6 for score in exact)
    for name in ("raw", "attention", "bias"):
        found, expected = ([score.attributes[name] for score in batch] for batch in (half, exact))
        assert found == pytest.approx(expected, abs=0.05), name


def test_logits_beyond_half_precision_are_taken_in_fp32(genziqa, tiny_model, tiny_clip, tiny_vae):
    """Queries and keys that fit into fp16, whose products do not: 65504 is its largest number.

    Only the first layer is read, since the model's own attention breaks there too, and with it all later layers.
    """
    model = tiny_model("sd15", 0, torch.float16)
    scorer = genziqa(model, tiny_clip("sd15"), tiny_vae(0), taps=("down.0.0",), bias_weight=0.0)
    with torch.no_grad():
        for name, parameter in model.model.diffusion_model.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter.mul_(200.0)
    score = scorer.score(pictures(1))[0]
    assert score.ok, score.reason
    assert abs(score.attributes["attention"]) > 100.0


def test_nan_in_the_attention_is_a_reason_for_its_image(genziqa, tiny_model, tiny_clip, tiny_vae):
    model = tiny_model("sd15")
    scorer = genziqa(model, tiny_clip("sd15"), tiny_vae(0))
    with torch.no_grad():
        model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_q.weight.fill_(float("nan"))
    batch = scorer.score(pictures(2))
    assert all("half precision" in score.reason for score in batch)


def test_the_embedded_model_is_judged_and_left_alone(genziqa, comfyui):
    from comfy import model_management
    from latent_critic.core.hosts.comfyui import embedded

    model, clip, vae = embedded.load_model(), embedded.load_clip(), embedded.load_vae()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    scorer = genziqa(model, clip, vae)
    images = pictures(2)
    together = scorer.score(images)
    assert all(score.ok for score in together)
    assert [scorer.score([image])[0].value for image in images] == pytest.approx(together.values(), abs=1e-4)
    held = scorer.held_bytes()
    assert held["lora"] > 0
    assert held["backup"] == held["patched"]
    model_management.load_models_gpu([model])
    after = model.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_interrupt_leaves_within_one_forward(genziqa, tiny_model, tiny_clip, tiny_vae):
    from comfy import model_management

    seen = []

    def press_cancel(done, total):
        seen.append(done)
        model_management.interrupt_current_processing(True)

    scorer = genziqa(tiny_model("sd15"), tiny_clip("sd15"), tiny_vae(0))
    with pytest.raises(model_management.InterruptProcessingException):
        scorer.score([torch.rand(3, 64, 64), torch.rand(3, 64, 128)], watch=press_cancel)
    assert len(seen) == 1
    model_management.interrupt_current_processing(False)
