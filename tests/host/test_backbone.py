"""ComfyBackbone against the bare network: clean estimates, batches, conditions, errors at the door."""

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = ["sd15", "sd20", "sd20_v", "sdxl"]


def bare_x0(patcher, family, z_t, sigma, tokens, pooled):
    """The clean estimate by the paper's formulas, from the network's own forward. Row by row, float64 around it."""
    network = patcher.model.diffusion_model
    found = []
    for row in range(z_t.shape[0]):
        s = sigma[row].double()
        scaled = (z_t[row : row + 1].double() / (s**2 + 1).sqrt()).float()
        table = patcher.model.model_sampling.sigmas.double()
        t = (table.log() - s.log()).abs().argmin()
        extra = {}
        if family.name == "sdxl":
            height, width = z_t.shape[2] * 8, z_t.shape[3] * 8
            numbers = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float64)
            steps = torch.exp(-torch.log(torch.tensor(10000.0, dtype=torch.float64)) * torch.arange(128) / 128)
            angles = numbers[:, None] * steps
            size = torch.cat([angles.cos(), angles.sin()], dim=1).flatten()
            extra["y"] = torch.cat([pooled[row], size.float()])[None]
        with torch.no_grad():
            out = network(scaled, t[None].float(), context=tokens[row : row + 1], transformer_options={}, **extra)
        out, noised = out.double(), z_t[row : row + 1].double()
        if family.prediction == "v":
            found.append(noised / (s**2 + 1) - out * s / (s**2 + 1).sqrt())
        else:
            found.append(noised - s * out)
    return torch.cat(found).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_x0_is_that_of_the_bare_network_by_the_papers_formula(make_backbone, tiny_model, call, family):
    model = tiny_model(family)
    backbone = make_backbone(family, model)
    z_t, sigma, conditioning = call(backbone)
    found = backbone.denoise(z_t, sigma, conditioning)
    expected = bare_x0(model, backbone.family, z_t, sigma, conditioning.tokens, conditioning.pooled)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_batch(make_backbone, call, family):
    backbone = make_backbone(family)
    z_t, sigma, conditioning = call(backbone, rows=5)
    whole = backbone.denoise(z_t, sigma, conditioning)
    for row in range(5):
        alone = backbone.denoise(z_t[[row]], sigma[[row]], conditioning.rows([row]))
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-4, atol=1e-5)


def test_a_long_prompt_in_the_batch_changes_nothing_for_the_short_ones(make_backbone, call):
    backbone = make_backbone()
    long = "a very long prompt " * 60
    z_t, sigma, conditioning = call(backbone, rows=3, prompts=("a good photo", long, "a bad photo"))
    assert conditioning.lengths == (77, 308, 77)
    whole = backbone.denoise(z_t, sigma, conditioning)
    for row, prompt in enumerate(conditioning.prompts):
        alone = backbone.denoise(z_t[[row]], sigma[[row]], backbone.embed([prompt]))
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-4, atol=1e-5)


def test_chunks_of_any_size_give_the_same(make_backbone, call, monkeypatch):
    backbone = make_backbone()
    z_t, sigma, conditioning = call(backbone, rows=5)
    whole = backbone.denoise(z_t, sigma, conditioning)
    for size in (1, 2, 4):
        monkeypatch.setattr(backbone, "rows_that_fit", lambda *args, size=size, **kwargs: size)
        torch.testing.assert_close(backbone.denoise(z_t, sigma, conditioning), whole, rtol=1e-4, atol=1e-5)


def test_two_calls_are_the_same_bit_by_bit(make_backbone, call):
    backbone = make_backbone("sdxl")
    arguments = call(backbone)
    assert torch.equal(backbone.denoise(*arguments), backbone.denoise(*arguments))
    assert torch.equal(make_backbone("sdxl").denoise(*arguments), backbone.denoise(*arguments))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(tiny_model, make_backbone, call, dtype):
    exact = make_backbone()
    arguments = call(exact)
    found = make_backbone(model=tiny_model("sd15", dtype=dtype)).denoise(*arguments)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.denoise(*arguments), rtol=0.1, atol=0.1)


def test_size_conditions_can_be_set(make_backbone, call):
    from dataclasses import replace

    backbone = make_backbone("sdxl")
    z_t, sigma, conditioning = call(backbone)
    default = backbone.denoise(z_t, sigma, conditioning)
    same = backbone.denoise(z_t, sigma, replace(conditioning, extra={"width": 96, "height": 64}))
    other = backbone.denoise(z_t, sigma, replace(conditioning, extra={"width": 1024, "height": 1024}))
    assert torch.equal(default, same)
    assert not torch.allclose(default, other, atol=1e-3)


def test_model_sampling_nodes_are_respected(comfyui, tiny_model, make_backbone, call):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    model = tiny_model("sd15")
    plain = make_backbone(model=model)
    (patched,) = ModelSamplingDiscrete().patch(model, "v_prediction", zsnr=False)
    backbone = make_backbone(model=patched)
    assert (plain.family.prediction, backbone.family.prediction) == ("eps", "v")
    z_t, sigma, conditioning = call(backbone)
    found = backbone.denoise(z_t, sigma, conditioning)
    expected = bare_x0(model, backbone.family, z_t, sigma, conditioning.tokens, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, plain.denoise(z_t, sigma, conditioning), atol=1e-2)


def test_lora_changes_the_estimate_as_merged_weights_do(comfyui, tiny_model, make_backbone, call):
    import comfy.sd

    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    up, down = torch.randn(64, 4), torch.randn(4, 64)
    lora = {
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_up.weight": up,
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.lora_down.weight": down,
    }
    model = tiny_model("sd15")
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.8, 0)
    assert patched.patches
    backbone = make_backbone(model=patched)
    arguments = call(backbone)
    found = backbone.denoise(*arguments)

    merged = tiny_model("sd15")
    with torch.no_grad():
        dict(merged.model.named_parameters())[name].add_(0.8 * up @ down)
    torch.testing.assert_close(found, make_backbone(model=merged).denoise(*arguments), rtol=1e-4, atol=1e-4)
    plain = make_backbone(model=model).denoise(*arguments)  # ComfyUI takes the patch off again for the plain MODEL
    assert not torch.allclose(found, plain, atol=1e-3)
    assert torch.equal(plain, make_backbone(model=tiny_model("sd15")).denoise(*arguments))


@pytest.mark.parametrize("lora", [False, True])
def test_weights_that_do_not_fit_on_the_card(comfyui, tiny_model, make_backbone, call, lora):
    """ComfyUI's partial loading: weights (and their patches) are cast for each layer as it runs."""
    model = tiny_model("sd15")
    if lora:
        name = "diffusion_model.output_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        generator = torch.Generator().manual_seed(0)
        model.add_patches({name: ("diff", (torch.randn(128, 64, generator=generator),))}, 0.5)
    backbone = make_backbone(model=model)
    arguments = call(backbone)
    expected, plain = backbone.denoise(*arguments), backbone.fingerprint
    model.detach()
    model.load("cpu", lowvram_model_memory=model.model_size() // 2)
    assert model.model.model_lowvram
    found = make_backbone(model=model)
    torch.testing.assert_close(found.denoise(*arguments), expected, rtol=1e-4, atol=1e-5)
    assert found.fingerprint == plain
    assert plain.patched == lora


def test_an_inpainting_checkpoint(make_backbone, call):
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean

    backbone = make_backbone("sd15_inpaint")
    z_t, sigma, conditioning = call(backbone)
    assert backbone.denoise(z_t, sigma, conditioning).shape == z_t.shape
    recorder = Recorder.of([tap for tap in backbone.family.taps if tap.name == "up.1"], mean)
    backbone.features(z_t, sigma, conditioning, recorder)
    assert len(recorder.rows("up.1")) == 3


def test_guidance_of_the_users_model_stays_out(comfyui, tiny_model, make_backbone, call):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    model = tiny_model("sd15")
    guided = RescaleCFG().patch(model, 0.7)[0]
    guided.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + 100.0, disable_cfg1_optimization=True)
    backbone = make_backbone(model=guided)
    arguments = call(backbone)
    assert torch.equal(backbone.denoise(*arguments), make_backbone(model=model).denoise(*arguments))
    assert "sampler_post_cfg_function" in guided.model_options  # still on the user's


def test_noise_is_the_same_for_one_seed(make_backbone):
    backbone = make_backbone()
    assert torch.equal(backbone.noise((2, 4, 8, 8), 3), backbone.noise((2, 4, 8, 8), 3))
    assert not torch.equal(backbone.noise((2, 4, 8, 8), 3), backbone.noise((2, 4, 8, 8), 4))


# Bad input ------------------------------------------------------------------------------------------------------------


def test_an_unknown_model(tiny_model):
    from latent_critic.core.errors import UnsupportedFamily
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(UnsupportedFamily, match=r"sd15, sd20, sdxl.*SD15_instructpix2pix"):
        ComfyBackbone(tiny_model("unknown"))


@pytest.mark.parametrize(("model", "clip"), [("sd15", "sdxl"), ("sdxl", "sd15"), ("sd20", "sd15")])
def test_a_clip_of_another_family(tiny_model, tiny_clip, model, clip):
    from latent_critic.core.errors import MismatchedBackbone
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(MismatchedBackbone, match="CLIP of the checkpoint"):
        ComfyBackbone(tiny_model(model), tiny_clip(clip))


def test_a_vae_that_does_not_fit(tiny_model, tiny):
    from latent_critic.core.errors import MismatchedBackbone
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(MismatchedBackbone, match="16 channels"):
        ComfyBackbone(tiny_model("sd15"), vae=tiny.vae(channels=16))


def test_no_model(comfyui):
    from latent_critic.core.errors import BadInput
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(BadInput, match="a MODEL; got NoneType"):
        ComfyBackbone(None)


def test_no_clip_and_no_vae(tiny_model):
    from latent_critic.core.errors import BadInput
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    backbone = ComfyBackbone(tiny_model("sd15"))
    with pytest.raises(BadInput, match="CLIP output"):
        backbone.embed(["a"])
    with pytest.raises(BadInput, match="VAE output"):
        backbone.encode(torch.zeros(1, 3, 64, 64))
    with pytest.raises(BadInput, match="VAE output"):
        backbone.decode(torch.zeros(1, 4, 8, 8))


def test_shapes_that_do_not_agree(make_backbone, call):
    from latent_critic.core.errors import BadInput

    backbone = make_backbone()
    z_t, sigma, conditioning = call(backbone)
    with pytest.raises(BadInput, match="one per latent"):
        backbone.denoise(z_t, sigma[:2], conditioning)
    with pytest.raises(BadInput, match="one per latent"):
        backbone.denoise(z_t, sigma, conditioning.rows([0]))
    with pytest.raises(BadInput, match="latents"):
        backbone.denoise(z_t[:, :3], sigma, conditioning)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="finite sigmas"):
            backbone.denoise(z_t, sigma * 0 + wrong, conditioning)
    with pytest.raises(BadInput, match="latents"):
        backbone.denoise(z_t[:0], sigma[:0], conditioning.rows([]))


def test_an_interrupt_leaves_within_one_call_and_leaves_nothing_behind(make_backbone, call):
    from comfy import model_management
    from latent_critic.core.taps.recorder import Recorder
    from latent_critic.core.taps.reducers import mean

    backbone = make_backbone()
    arguments = call(backbone)
    before = backbone.denoise(*arguments)
    recorder = Recorder.of([tap for tap in backbone.family.taps if tap.kind == "feature"], mean)
    model_management.interrupt_current_processing(True)
    with pytest.raises(model_management.InterruptProcessingException):
        backbone.features(*arguments, recorder)
    assert not recorder.records
    model_management.interrupt_current_processing(False)
    assert torch.equal(backbone.denoise(*arguments), before)
