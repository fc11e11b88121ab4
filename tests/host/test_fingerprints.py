"""Fingerprints of real MODELs: through dtypes, LoRA, lowered VRAM; telling checkpoints apart."""

import pytest
import torch

pytestmark = pytest.mark.host

LAYER = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"


def lora_for_everything(model):
    patches = {}
    for name, weight in model.model.named_parameters():
        if name.startswith("diffusion_model.") and weight.ndim == 2:
            rows, columns = weight.shape
            patches[name] = ("diff", (torch.randn(rows, columns),))
    patched = model.clone()
    assert patched.add_patches(patches, 1.0)
    return patched


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_one_checkpoint_in_any_dtype(make_backbone, tiny_model, family, dtype):
    exact, copy = tiny_model(family), tiny_model(family)
    copy.model.diffusion_model.to(dtype)
    one, other = make_backbone(family, exact).fingerprint, make_backbone(family, copy).fingerprint
    assert one.matches(other)
    assert other.coarse == (dtype.itemsize == 1)
    assert not one.patched
    assert not other.matches(make_backbone(family, tiny_model(family, seed=1)).fingerprint)


def test_quantised_weights(comfyui, make_backbone, tiny_model):
    from comfy.quant_ops import QuantizedTensor

    exact, copy = tiny_model("sd15"), tiny_model("sd15")
    for module in copy.model.diffusion_model.modules():
        if isinstance(module, torch.nn.Linear):
            quantised = QuantizedTensor.from_float(module.weight.data.bfloat16(), "TensorCoreFP8Layout")
            module.weight = torch.nn.Parameter(quantised, requires_grad=False)
    one, other = make_backbone(model=exact).fingerprint, make_backbone(model=copy).fingerprint
    assert other.coarse
    assert one.matches(other)
    assert one != other


def test_families_are_told_apart(make_backbone):
    assert not make_backbone("sd15").fingerprint.matches(make_backbone("sdxl").fingerprint)


@pytest.mark.parametrize("loaded", [False, True])
def test_patches_are_seen_and_seen_through(comfyui, make_backbone, tiny_model, call, loaded):
    import comfy.model_management

    model = tiny_model("sd15")
    plain = make_backbone(model=model).fingerprint
    patched = lora_for_everything(model)
    if loaded:
        comfy.model_management.load_models_gpu([patched])
        assert patched.backup
    found = make_backbone(model=patched).fingerprint
    assert found.patched
    assert found.matches(plain)
    assert found.sketch == plain.sketch
    if loaded:  # the plain MODEL, while its weights still lie patched
        assert make_backbone(model=model).fingerprint == plain
        comfy.model_management.unload_all_models()


def test_it_reads_little(make_backbone, tiny_model, monkeypatch):
    from latent_critic.core.hosts.comfyui import facts

    seen = []
    original = facts._original
    monkeypatch.setattr(facts, "_original", lambda *args: seen.append(args[1]) or original(*args))
    fingerprint = make_backbone(model=tiny_model("sd15")).fingerprint
    assert len(fingerprint.sketch) == 256
    assert len(seen) == 16
