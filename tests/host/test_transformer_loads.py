"""Transformers as people load them: in inference mode, in 16 and 8 bits, under LoRA, on little memory."""

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = ["sd3", "flux", "flux_schnell", "flux2", "lumina2", "zimage", "qwen_image", "wan21"]


@pytest.fixture
def make(comfyui, tiny):
    """`make(family, **how)` → a backbone of a model that was loaded so."""
    import latent_critic_tiny_transformers as transformers
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    def build(family, model=None, vae=False, **how):
        loaded = model or transformers.model(family, **how)
        return ComfyBackbone(loaded, tiny.clip(family), tiny.vae(0, family=family) if vae else None)

    return build


def arguments(backbone):
    z = 0.5 * backbone.noise((2, backbone.family.latent_channels, 6, 10), seed=1)
    return z, torch.tensor([0.3, 0.6]), backbone.embed(["a good photo", "a good photo"])


def slope_through_the_denoiser(backbone):
    z_t, sigma, texts = arguments(backbone)
    with backbone.gradients(denoiser=True, decoder=False):
        z = z_t.clone().requires_grad_(True)
        return torch.autograd.grad(backbone.denoise(z, sigma.clone(), texts).square().mean(), z)[0]


def slope_by_hand(model, backbone):
    """Plain autograd through ComfyUI's model, without guider, aliases or context."""
    import comfy.model_management as management

    z_t, sigma, texts = arguments(backbone)
    tokens, more = texts.tokens, {}
    if texts.pooled is not None:
        more["y"] = texts.pooled
    if backbone.family.guidance:
        more["guidance"] = torch.full((2,), backbone.family.guidance)
    if backbone.family.name == "flux2":
        tokens = torch.nn.functional.pad(tokens, (0, 0, 512 - tokens.shape[1], 0))
    if backbone.family.name in ("lumina2", "zimage"):
        more["num_tokens"] = tokens.shape[1]
    z = z_t.clone().requires_grad_(True)
    x = z.unsqueeze(2) if model.model.latent_format.latent_dimensions == 3 else z
    with pytest.MonkeyPatch.context() as patch, torch.autograd.graph.allow_mutation_on_saved_tensors():
        patch.setattr(management, "in_training", True, raising=False)
        x0 = model.model.apply_model(x, sigma, c_crossattn=tokens, **more)
        return torch.autograd.grad(x0.square().mean(), z)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_inference_mode_are_those_of_plain_autograd(tiny, make, family):
    plain = tiny.model(family)
    expected = slope_by_hand(plain, make(family, plain))
    with torch.inference_mode():
        model = tiny.model(family)
        assert all(parameter.is_inference() for parameter in model.model.parameters())
        found = slope_through_the_denoiser(make(family, model))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert float(expected.abs().max()) > 1e-4


@pytest.mark.parametrize("family", ["sd3", "flux2", "wan21"])
def test_gradients_through_the_decoder_are_those_of_finite_differences(make, family):
    with torch.inference_mode():
        backbone = make(family, vae=True)
        latents = 0.3 * backbone.noise((1, backbone.family.latent_channels, 4, 4), 1)
    direction = backbone.noise(latents.shape, 2)

    def loss(z):
        return (backbone.decode(z, differentiable=True).double() - 0.3).square().mean()

    with backbone.gradients():
        z = latents.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(z), z)
        up, down = (float(loss(latents.clone() + sign * 1e-3 * direction).detach()) for sign in (1, -1))
    assert float((slope * direction).sum()) == pytest.approx((up - down) / 2e-3, rel=3e-2, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_one_checkpoint_in_any_dtype_has_one_fingerprint(make, family, dtype):
    exact = make(family).fingerprint
    copy = make(family, dtype=dtype, compute=torch.float32).fingerprint
    assert exact.matches(copy)
    assert copy.coarse == (dtype.itemsize == 1)
    assert not copy.matches(make(family, seed=1).fingerprint)


@pytest.mark.parametrize("family", ["sd3", "flux", "zimage", "wan21"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.02), (torch.float8_e4m3fn, 0.2)])
def test_weights_of_few_bits_give_nearly_the_same(make, family, dtype, near):
    """Cast to fp32 as they are used, which is what ComfyUI does where a device cannot compute in them."""
    exact = make(family)
    call = arguments(exact)
    expected = exact.denoise(*call)
    coarse = make(family, dtype=dtype, compute=torch.float32)
    apart = (coarse.denoise(*call) - expected).square().mean().sqrt()
    assert float(apart) <= near * float((expected - call[0]).square().mean().sqrt())
    assert float(apart) > 0.0
    assert bool(slope_through_the_denoiser(coarse).isfinite().all())


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen_image", "wan21"])
def test_lora_counts_and_is_told(tiny, make, family):
    import comfy.model_management

    model = tiny.model(family)
    plain = make(family, model)
    expected = plain.denoise(*arguments(plain))
    patched = model.clone()
    changes = {
        name: ("diff", (0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)),))
        for name, weight in model.model.named_parameters()
        if name.startswith("diffusion_model.") and weight.ndim == 2
    }
    assert patched.add_patches(changes, 1.0)
    found = make(family, patched)
    assert not torch.allclose(found.denoise(*arguments(found)), expected, atol=1e-4)
    assert found.fingerprint.patched
    assert found.fingerprint.matches(plain.fingerprint)
    assert found.identity["model"] != plain.identity["model"]
    torch.testing.assert_close(plain.denoise(*arguments(plain)), expected)
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_is_estimated_and_running_out_halves_the_rows(make, family, monkeypatch, caplog):
    """A backward counts more than a forward, more pixels more than few; a forward that did not fit is split."""
    import comfy.model_management as management
    from latent_critic.core.hosts.comfyui import denoiser, memory

    backbone = make(family, vae=True)
    channels = backbone.family.latent_channels
    call = arguments(backbone)
    expected = backbone.denoise(*call)
    monkeypatch.setattr(management, "get_free_memory", lambda *args, **kwargs: 40 * 2**30)
    monkeypatch.setattr(memory, "CPU_PIXELS", 10**9)
    for where in ({}, {"decoder": True}):
        small, large = (backbone.rows_that_fit((channels, side, side), **where) for side in (32, 256))
        assert small > large >= 1
        assert backbone.rows_that_fit((channels, 32, 32), backward=True, **where) < small
    monkeypatch.undo()
    whole = denoiser.denoise

    def small_card(patcher, z_t, *rest):
        if len(z_t) > 1:
            raise torch.cuda.OutOfMemoryError("test")
        return whole(patcher, z_t, *rest)

    monkeypatch.setattr(denoiser, "denoise", small_card)
    monkeypatch.setattr(backbone, "rows_that_fit", lambda *args, **kwargs: 8)
    torch.testing.assert_close(backbone.denoise(*call), expected, rtol=1e-4, atol=1e-5)
    assert "Out of memory with 2 rows in one forward; going on with 1" in caplog.text
