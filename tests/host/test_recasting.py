"""Gradients through layers that cast their weight in every forward equal those of plain weights, and keep no copy."""

import pytest
import torch

pytestmark = pytest.mark.host

FAMILIES = ["sd15", "sdxl", "flux", "zimage", "wan21"]


@pytest.fixture
def make(comfyui, tiny, tiny_clip):
    """`make(family, model)` → a backbone of a model."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return lambda family, model: ComfyBackbone(model, tiny_clip(family))


@pytest.fixture
def recasts(comfyui, monkeypatch):
    """How many layers were run through the second form."""
    from latent_critic.core.hosts.comfyui import recasting

    seen, own = [], recasting.casts
    monkeypatch.setattr(recasting, "casts", lambda *args: seen.append(own(*args)) or seen[-1])
    return lambda: sum(seen)


@pytest.fixture
def little_vram(comfyui, monkeypatch):
    """ComfyUI leaves every weight where it is and patches it as it is used, as under --novram on a card."""
    from comfy import model_management

    model_management.unload_all_models()
    monkeypatch.setattr(model_management, "vram_state", model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(model_management, "is_device_cpu", lambda device: False)
    yield
    monkeypatch.undo()
    model_management.unload_all_models()


def slope(backbone):
    """The gradient of a loss of x0 with respect to the latents."""
    z = 0.5 * backbone.noise((2, backbone.family.latent_channels, 6, 10), seed=1)
    texts = backbone.embed(["a good photo"] * 2)
    with backbone.gradients(denoiser=True, decoder=False):
        z = z.clone().requires_grad_(True)
        x0 = backbone.denoise(z, torch.tensor([0.3, 0.6]), texts)
        return torch.autograd.grad(x0.square().mean(), z)[0]


def lora(model, scale=0.05):
    generator = torch.Generator().manual_seed(1)
    patched = model.clone()
    changes = {
        name: ("diff", (scale * torch.randn(weight.shape, generator=generator),))
        for name, weight in model.model.named_parameters()
        if name.startswith("diffusion_model.") and weight.ndim >= 2
    }
    assert patched.add_patches(changes, 1.0)
    return patched


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert float(expected.abs().max()) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_under_little_vram_with_lora(tiny, make, weights_of, recasts, family, request):
    from comfy import model_management

    expected = slope(make(family, lora(tiny.model(family))))  # patched in place
    model_management.unload_all_models()
    assert not recasts()
    request.getfixturevalue("little_vram")
    with torch.inference_mode():
        model = lora(tiny.model(family))
        before = weights_of(model)
        found = slope(make(family, model))
    assert any(getattr(module, "weight_function", []) for module in model.model.modules())
    assert recasts() > 10
    close(found, expected)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("forward" in vars(module) for module in model.model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16])
def test_weights_of_few_bits_that_are_cast_as_they_are_used(tiny, make, recasts, weights_of, family, dtype):
    exact, rounded = tiny.model(family), tiny.model(family, 0, dtype, torch.float32).model.diffusion_model
    exact.model.diffusion_model.load_state_dict({name: value.float() for name, value in rounded.state_dict().items()})
    expected = slope(make(family, exact))
    with torch.inference_mode():
        model = tiny.model(family, 0, dtype, torch.float32)
        before = weights_of(model)
        found = slope(make(family, model))
    assert recasts() > 10
    close(found, expected)
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", FAMILIES)
def test_under_dynamic_vrams_handles(tiny, make, recasts, family):
    """Where a weight's place is ComfyUI's own business, every use casts; on a CPU the casts are copies."""
    expected = slope(make(family, tiny.model(family)))
    with torch.inference_mode():
        model = tiny.model(family)
        for module in model.model.modules():
            if hasattr(module, "comfy_cast_weights") and getattr(module, "weight", None) is not None:
                module._v, module.comfy_cast_weights = object(), True
        found = slope(make(family, model))
    assert recasts() > 10
    close(found, expected)


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_quantised_blocks(tiny, tiny_gguf, make, recasts, family):
    expected = slope(make(family, tiny_gguf.rounded_model(family)))
    assert not recasts()
    with torch.inference_mode():
        model, count = tiny_gguf.gguf_model(family)
        found = slope(make(family, model))
    assert recasts() > 10
    close(found, expected)
    assert sum(tiny_gguf.in_blocks(weight) for weight in model.model.parameters()) == count


def test_no_cast_weight_is_kept_for_the_backward(comfyui):
    """What autograd holds between forward and backward, in bytes: not one copy of a weight, nor a linear's input."""
    import comfy.ops
    from latent_critic.core.hosts.comfyui.recasting import recast

    layers = comfy.ops.manual_cast
    network = torch.nn.Sequential(
        layers.Linear(64, 64, dtype=torch.float16), layers.LayerNorm(64, dtype=torch.float16),
        layers.Linear(64, 64, dtype=torch.float16),
    )  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1).requires_grad_(False)
    x = torch.randn(2, 64, requires_grad=True)

    def run():
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            out = network(x)
        return sum(kept), torch.autograd.grad(out.square().sum(), x)[0]

    plain, expected = run()
    with recast(network):
        lean, found = run()
    torch.testing.assert_close(found, expected)
    assert plain >= 2 * 64 * 64
    assert lean <= 2 * 64 + 2 * 64  # the norm's input, and what squaring the result keeps
    assert torch.equal(run()[1], expected)


def test_a_product_in_few_bits_takes_the_full_weights_slope(comfyui):
    """Layers that multiply in fp8 have no autograd of their own; elsewhere their input is rounded too."""
    import comfy.ops
    from comfy.quant_ops import QuantizedTensor
    from latent_critic.core.hosts.comfyui.recasting import recast

    class Product(torch.nn.Module, comfy.ops.CastWeightBiasOp):
        in_features = out_features = 16

        def __init__(self):
            super().__init__()
            weight = QuantizedTensor.from_float(torch.randn(16, 16).bfloat16(), "TensorCoreFP8Layout")
            self.weight, self.bias = torch.nn.Parameter(weight, requires_grad=False), None

        def forward(self, x):
            rounded = x.detach().to(torch.float8_e4m3fn).float()
            return rounded @ self.weight.dequantize().float().T

    layer, x = Product(), torch.randn(3, 16, requires_grad=True)
    with recast(layer):
        (found,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(found, layer.weight.dequantize().float().sum(0).expand(3, -1))
