"""Diffusers pipelines as people have them: inpainting, other schedulers, LoRA, FreeU, GGUF, caches."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def pipe(comfyui, tiny, tiny_pipelines):
    return tiny_pipelines.pipeline("sd15", tiny.model("sd15"), tiny.vae(0))


@pytest.fixture
def flux(comfyui, tiny, tiny_pipelines):
    return tiny_pipelines.pipeline("flux", tiny.model("flux"), tiny.vae(0, family="flux"))


def of(pipeline):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    return DiffusersBackbone(pipeline)


def scored(pipeline):
    from latent_critic import Scorer

    pictures = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    batch = Scorer.from_pipeline(pipeline, side=64).score(pictures)
    assert [score.reason for score in batch] == [None, None]
    return batch.values()


def call(backbone):
    sigma = torch.tensor([0.3, 0.7])
    z = backbone.noise((2, backbone.family.latent_channels, 8, 6), 1)
    return 0.5 * z, sigma, backbone.embed(["a good photo", "a bad photo"])


# What the denoiser is ------------------------------------------------------------------------------------------------


def test_an_inpainting_model_scores_as_in_comfyui(comfyui, tiny, tiny_clip, tiny_pipelines):
    """All masked, and mid-grey beneath."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    model = tiny.model("sd15_inpaint")
    model.model.set_inpaint()
    pipeline = tiny_pipelines.pipeline("sd15", model, tiny.vae(0))
    assert pipeline.unet.config.in_channels == 9
    other, comfy = of(pipeline), ComfyBackbone(model, tiny_clip("sd15"), tiny.vae(0))
    given = call(comfy)
    with torch.no_grad():
        torch.testing.assert_close(other.denoise(*given), comfy.denoise(*given), rtol=1e-4, atol=1e-4)
    assert other.fingerprint.matches(comfy.fingerprint)
    scored(pipeline)


def test_sdxl_as_a_flow_model_estimates_as_in_comfyui(comfyui, diffusers, tiny, tiny_clip, tiny_pipelines):
    import comfy_extras.nodes_model_advanced as advanced
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    model = tiny.model("sdxl")
    pipeline = tiny_pipelines.pipeline("sdxl", model, tiny.vae(0))
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    (flow,) = advanced.ModelSamplingSD3().patch(model, 3.0)
    other, comfy = of(pipeline), ComfyBackbone(flow, tiny_clip("sdxl"), tiny.vae(0))
    assert other.family == comfy.family
    assert other.family.prediction == "flow"
    given = call(comfy)
    with torch.no_grad():
        torch.testing.assert_close(other.denoise(*given), comfy.denoise(*given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_a_scheduler_of_another_noise_is_refused_by_name(diffusers, pipe, name):
    from latent_critic.core.errors import UnsupportedFamily

    pipe.scheduler = getattr(diffusers, name)()
    with pytest.raises(UnsupportedFamily, match=f"SD15 with 4 input channels and {name} prediction"):
        of(pipe)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "LCMScheduler", "PNDMScheduler"])
def test_other_schedulers_of_the_same_noise_are_fine(diffusers, pipe, name):
    expected = scored(pipe)
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    assert scored(pipe) == pytest.approx(expected, abs=1e-4)


def test_a_pipeline_without_its_scheduler(pipe):
    from latent_critic.core.errors import BadInput

    with pytest.raises(BadInput, match="a pipeline with its scheduler"):
        of(SimpleNamespace(**{**pipe.components, "scheduler": None}))


def test_u_nets_that_are_no_u_nets_of_pictures(diffusers, pipe):
    """Videos, pixels without text, other attention: by name, not in the middle of a forward."""
    from latent_critic.core.errors import BadInput, UnsupportedFamily

    small = {"block_out_channels": (32, 64), "layers_per_block": 1}
    blocks = {"down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D")}
    blocks["up_block_types"] = ("UpBlock3D", "CrossAttnUpBlock3D")
    video = diffusers.UNet3DConditionModel(**small, **blocks, cross_attention_dim=64, attention_head_dim=4)
    plain = diffusers.UNet2DModel(
        **small, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")
    )
    for network in (video, plain):
        with pytest.raises(BadInput, match=f"a U-Net of pictures .* with {type(network).__name__}"):
            of(SimpleNamespace(unet=network, scheduler=pipe.scheduler, vae=None))
    other = diffusers.UNet2DConditionModel(
        **small, down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=64,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    with pytest.raises(UnsupportedFamily, match="a U-Net of ResnetDownsampleBlock2D, SimpleCrossAttnDownBlock2D"):
        of(SimpleNamespace(unet=other, scheduler=pipe.scheduler, vae=None))


def test_an_ip_adapter_is_to_be_taken_off(pipe):
    from latent_critic.core.errors import BadInput

    backbone = of(pipe)
    given = call(backbone)
    pipe.unet.config["encoder_hid_dim_type"] = "ip_image_proj"  # what load_ip_adapter registers
    pipe.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    for ask in (lambda: backbone.denoise(*given), lambda: of(pipe)):
        with pytest.raises(BadInput, match="unload_ip_adapter"):
            ask()


def test_a_cache_of_steps_is_to_be_switched_off(diffusers, flux):
    from latent_critic.core.errors import BadInput

    backbone = of(flux)
    given = call(backbone)
    flux.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(BadInput, match="disable_cache"):
        backbone.denoise(*given)
    flux.transformer.disable_cache()
    assert bool(backbone.denoise(*given).isfinite().all())


def test_sd3_says_how_large_a_picture_may_be(comfyui, tiny, tiny_pipelines):
    from latent_critic.core.errors import BadInput

    backbone = of(tiny_pipelines.pipeline("sd3", tiny.model("sd3"), tiny.vae(0, family="sd3")))
    texts = backbone.embed(["a photo"])
    wide = torch.zeros(1, 16, 2, 130)
    with pytest.raises(BadInput, match=r"at most 1024 px a side.* got 16 × 1040 px"):
        backbone.denoise(wide, torch.tensor([0.3]), texts)
    assert bool(backbone.denoise(wide[..., :128], torch.tensor([0.3]), texts).isfinite().all())


# What lies over the weights ------------------------------------------------------------------------------------------


def with_adapter(network, factor=1.0, kind="LoraConfig", name="default_0", **more):
    import peft

    torch.manual_seed(3)
    settings = {"r": 4, "target_modules": ["to_k", "to_q", "to_v"], "init_weights": False}
    if kind == "LoraConfig":
        settings["init_lora_weights"] = settings.pop("init_weights")
    network.add_adapter(getattr(peft, kind)(**settings, **more), name)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if f".{name}" in key:
                parameter.mul_(factor)


@pytest.mark.parametrize("kind", ["LoraConfig", "LoHaConfig"])
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_an_adapter_is_seen_as_one_and_through(pipe, flux, family, kind):
    """Also one that is loaded after the scorer was made; another one is another identity."""
    pipeline = pipe if family == "sd15" else flux
    network = pipeline.unet if family == "sd15" else pipeline.transformer
    backbone = of(pipeline)
    plain, before = backbone.fingerprint, dict(backbone.identity)
    assert before["model"] == "plain"
    with_adapter(network, kind=kind)
    for found in (backbone, of(pipeline)):
        assert found.fingerprint.distance(plain) < 1e-6
        assert found.fingerprint.patched
        assert found.identity["model"].startswith("default_0 ")
    one = backbone.identity["model"]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".default_0" in name:
                parameter.mul_(3.0)
    assert of(pipeline).identity["model"] not in (one, "plain")
    network.disable_adapters()
    assert backbone.identity == before
    assert not backbone.fingerprint.patched


def test_the_strength_of_an_adapter_counts(pipe):
    with_adapter(pipe.unet)
    whole, value = of(pipe).identity["model"], scored(pipe)
    pipe.unet.set_adapters(["default_0"], weights=[0.5])
    assert of(pipe).identity["model"] != whole
    assert scored(pipe) != pytest.approx(value, abs=1e-5)


def test_a_fused_adapter_is_seen_through(pipe):
    plain = of(pipe).fingerprint
    with_adapter(pipe.unet, 3.0)
    pipe.unet.fuse_lora()
    found = of(pipe)
    assert found.fingerprint.distance(plain) < 1e-4
    assert found.fingerprint.patched
    assert found.identity["model"] != "plain"
    merged = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k
    assert merged.merged_adapters


def test_adapters_on_a_text_encoder_are_told_and_leave_its_sketch(pipe):
    from latent_critic.core.backbone.fingerprint import Fingerprint

    before = dict(of(pipe).identity)
    import peft

    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(settings, "words")
    after = of(pipe).identity
    assert after["text_patches"].startswith("words ")
    assert before["text_patches"] == "plain"
    for key in ("diffusers_text_encoder", "text_l"):
        assert Fingerprint.from_text(before[key]).distance(Fingerprint.from_text(after[key])) < 1e-3


def test_freeu_is_told(pipe):
    backbone = of(pipe)
    value = scored(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    told = backbone.identity["model"]
    assert told != "plain"
    assert scored(pipe) != pytest.approx(value, abs=1e-5)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    assert backbone.identity["model"] not in ("plain", told)
    pipe.disable_freeu()
    assert backbone.identity["model"] == "plain"


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_fused_projections_are_the_same_model(pipe, flux, family):
    pipeline = pipe if family == "sd15" else flux
    plain = of(pipeline).fingerprint
    (pipe if family == "sd15" else flux.transformer).fuse_qkv_projections()
    assert of(pipeline).fingerprint.distance(plain) < 1e-6


def test_fused_projections_show_no_attention_and_the_remedy_is_told(pipe):
    from latent_critic.core.errors import BadInput

    pipe.fuse_qkv_projections()
    with pytest.raises(BadInput, match="unfuse_qkv_projections"):
        scored(pipe)
    pipe.unfuse_qkv_projections()
    scored(pipe)


def in_gguf(network):
    """Every large matrix as diffusers' GGUF loader keeps it, written by the package gguf."""
    import gguf
    import numpy as np
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    kind, count = gguf.GGMLQuantizationType.Q8_0, 0
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is torch.nn.Linear and layer.in_features % 32 == 0:
                data = torch.from_numpy(np.array(gguf.quants.quantize(layer.weight.numpy(), kind)))
                made = GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, torch.float32)
                made.weight, made.bias = GGUFParameter(data, quant_type=kind), layer.bias
                setattr(module, name, made)
                count += 1
    return count


@pytest.mark.parametrize("family", ["flux", "flux2", "zimage"])
def test_gguf_scores_and_is_the_same_checkpoint(comfyui, tiny, tiny_pipelines, family):
    def make(seed=0):
        return tiny_pipelines.pipeline(family, tiny.model(family, seed), tiny.vae(0, family=family))

    plain, other = of(make()).fingerprint, of(make(1)).fingerprint
    pipeline = make()
    expected = scored(pipeline)
    assert in_gguf(pipeline.transformer) > 10
    found = of(pipeline)
    assert found.fingerprint.coarse
    assert found.fingerprint.matches(plain)
    assert found.fingerprint.matches(found.fingerprint)
    assert not found.fingerprint.matches(other)
    assert "opaque" not in found.identity
    spread = abs(expected[0] - expected[1])
    assert scored(pipeline) == pytest.approx(expected, abs=0.1 * spread + 1e-3)


def test_weights_in_a_form_that_is_not_read_are_opaque(flux):
    layer = flux.transformer.transformer_blocks[0].ff.net[2]
    layer.weight = torch.nn.Parameter(torch.zeros(64, 64, dtype=torch.uint8), requires_grad=False)
    assert "quantised" in of(flux).identity["opaque"]


# Gradients -----------------------------------------------------------------------------------------------------------


def test_weights_that_ask_for_gradients_get_none(pipe):
    """As from_pretrained leaves them."""
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        module.requires_grad_(True)
    backbone = of(pipe)
    z_t, sigma, texts = call(backbone)
    with backbone.gradients(denoiser=True):
        z = z_t.clone().requires_grad_(True)
        backbone.denoise(z, sigma, texts).square().sum().backward()
    assert float(z.grad.abs().max()) > 0.0
    assert all(weight.grad is None for weight in pipe.unet.parameters())
    assert all(weight.requires_grad for module in (pipe.unet, pipe.vae) for weight in module.parameters())


def test_weights_of_inference_mode_are_refused_for_gradients(comfyui, tiny, tiny_pipelines):
    from latent_critic.core.errors import BadInput

    with torch.inference_mode():
        pipeline = tiny_pipelines.pipeline("sd15", tiny.model("sd15"), tiny.vae(0))
    backbone = of(pipeline)
    assert bool(backbone.denoise(*call(backbone)).isfinite().all())
    with pytest.raises(BadInput, match=r"outside torch\.inference_mode"), backbone.gradients():
        pass


def test_attention_through_another_kernel_is_silent_and_not_the_next_modules(comfyui):
    from latent_critic.core.hosts.diffusers.joint_attention import FirstAttention

    class Other(torch.nn.Module):
        def forward(self, q):
            return torch.softmax(q @ q.transpose(-1, -2), -1) @ q

    class Usual(torch.nn.Module):
        def forward(self, q):
            return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    other, usual, seen = Other(), Usual(), []
    q = torch.rand(1, 1, 4, 4)
    with FirstAttention(slice(0, 2), slice(2, 4)) as watching:
        for module in (other, usual):
            watching.announce(module, lambda logits, module=module: seen.append(type(module).__name__))
        other(q)
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        usual(q)
    assert seen == ["Usual"]
