"""However a MODEL was loaded, a scorer works on it: LoRA, 8 and 16 bits, torch.compile, GGUF. Scores and gradients."""

import pytest
import torch

pytestmark = pytest.mark.host

SIDE = 64


@pytest.fixture
def make(comfyui, tiny_clip, tiny):
    """`make(model, family)` → a backbone with CLIP and VAE."""
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    return lambda model, family="sd15": ComfyBackbone(model, tiny_clip(family), tiny.vae(0, family=family))


def pictures():
    draw = torch.Generator().manual_seed(3)
    clean = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=draw), (SIDE, SIDE), mode="bicubic")[0]
    return [clean.clamp(0, 1), (clean + 0.3 * torch.randn(clean.shape, generator=draw)).clamp(0, 1)]


def scored(backbone):
    """zero_shot's values."""
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    found = ZeroShot(backbone, options=ZeroShotOptions(side=SIDE, timesteps=(90, 30))).score(pictures())
    assert [score.reason for score in found] == [None, None]
    return found.values()


def guided(backbone):
    """lgdm's hyperfeatures along a guided path: gradients through the decoder, and through the denoiser."""
    from latent_critic.core.guidance.options import GuidanceOptions
    from latent_critic.core.methods.hyperfeature_options import HyperfeatureOptions
    from latent_critic.core.methods.hyperfeatures import Hyperfeatures

    guidance = GuidanceOptions(timesteps=(90, 30), zeta1=0.02, zeta2=0.0, through="denoiser")
    options = HyperfeatureOptions(kind="guided_path", guidance=guidance, side=SIDE, most_crops=1)
    found = Hyperfeatures(backbone, options).extract(pictures())
    assert [one.reason for one in found] == [None, None]
    return torch.stack([one.features for one in found])


def alike(found, expected, near=1e-3):
    """Both methods' results, from two backbones."""
    assert scored(found) == pytest.approx(scored(expected), abs=near)
    one, other = guided(found), guided(expected)
    assert float((one - other).norm()) <= near * float(other.norm())


def with_lora(model):
    generator = torch.Generator().manual_seed(1)
    patched = model.clone()
    weights = {key: tuple(weight.shape) for key, weight in model.model.named_parameters() if "attn2.to_k" in key}
    changes = {key: ("diff", (0.5 * torch.randn(shape, generator=generator),)) for key, shape in weights.items()}
    assert patched.add_patches(changes, 1.0)
    return patched


@pytest.mark.parametrize("family", ["sd15", "flux"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_weights_of_8_and_16_bits(tiny, make, family, dtype):
    """Cast as they are used, they are the model of the rounded weights."""
    model = tiny.model(family, 0, dtype, torch.float32)
    rounded = {name: value.float() for name, value in model.model.diffusion_model.state_dict().items()}
    same = tiny.model(family)
    same.model.diffusion_model.load_state_dict(rounded)
    alike(make(model, family), make(same, family))
    assert make(model, family).fingerprint.matches(make(tiny.model(family), family).fingerprint)


def test_lora(tiny, make):
    from comfy import model_management

    plain, patched = make(tiny.model("sd15")), make(with_lora(tiny.model("sd15")))
    assert patched.fingerprint.patched
    assert patched.fingerprint.matches(plain.fingerprint)
    assert scored(patched) != pytest.approx(scored(plain), abs=1e-4)
    assert bool(guided(patched).isfinite().all())
    model_management.unload_all_models()


def compiled(model, way):
    """As nodes do it: around the model while it is applied, or in place of its network or of single blocks."""
    found = model.clone()
    network = model.model.diffusion_model
    if way == "wrapper":
        pytest.importorskip("comfy_api.torch_helpers.torch_compile").set_torch_compile_wrapper(found, "eager")
    if way == "network":
        found.add_object_patch("diffusion_model", torch.compile(network, backend="eager"))
    if way == "blocks":
        for place, block in enumerate(network.double_blocks):
            found.add_object_patch(f"diffusion_model.double_blocks.{place}", torch.compile(block, backend="eager"))
    return found


@pytest.mark.parametrize(
    ("way", "family"), [("wrapper", "sd15"), ("wrapper", "flux"), ("network", "sd15"), ("blocks", "flux")]
)
def test_torch_compile(tiny, make, way, family):
    """The same values, the same identity, and nothing was compiled for the scorer."""
    import torch._dynamo

    model = tiny.model(family)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, other = make(model, family), make(compiled(model, way), family)
    alike(other, plain, near=1e-5)
    assert dict(other.identity) == dict(plain.identity)
    assert other.fingerprint == plain.fingerprint
    assert not torch._dynamo.utils.counters["frames"]
    assert type(model.model.diffusion_model).__name__ in ("UNetModel", "Flux")


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_gguf(tiny, tiny_gguf, make, family):
    model, count = tiny_gguf.gguf_model(family)
    assert count > 10
    rounded = tiny_gguf.rounded_model(family)
    alike(make(model, family), make(rounded, family))
    exact = make(tiny.model(family), family).fingerprint
    found = make(model, family).fingerprint
    assert found.coarse
    assert found.matches(exact)
    assert found.matches(make(rounded, family).fingerprint)
    assert not found.matches(make(tiny.model(family, 1), family).fingerprint)
    assert all(tiny_gguf.in_blocks(weight) for name, weight in model.model.named_parameters() if "qkv.weight" in name)


def test_gguf_under_lora(tiny_gguf, make):
    """The LoRA counts, is told, and is seen through by the fingerprint; nothing of it stays."""
    from comfy import model_management

    plain, patched = (model for model, _ in (tiny_gguf.gguf_model("sd15"), tiny_gguf.gguf_model("sd15")))
    generator = torch.Generator().manual_seed(1)
    changes = {
        key: ("diff", (0.5 * torch.randn(tuple(weight.shape), generator=generator),))
        for key, weight in patched.model.named_parameters()
        if key.endswith("attn2.to_k.weight")
    }
    assert patched.add_patches(changes, 1.0)
    expected = scored(make(plain))
    found = make(patched)
    assert scored(found) != pytest.approx(expected, abs=1e-4)
    assert bool(guided(found).isfinite().all())
    assert any(weight.patches for weight in patched.model.parameters() if tiny_gguf.in_blocks(weight))
    assert found.fingerprint.patched
    assert found.fingerprint.sketch == make(plain).fingerprint.sketch
    assert found.identity["model"] != make(plain).identity["model"]
    model_management.unload_all_models()
