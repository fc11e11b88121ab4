"""Two scorers have one spec exactly when they were set up alike."""

import pytest
import torch

pytestmark = pytest.mark.host
KEY = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
CLIP_KEY = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"


def lora(model, strength, value=0.05):
    """A LoRA of rank 1 on one layer, as ComfyUI's loader gives it."""
    from comfy.weight_adapter import LoRAAdapter

    rows, columns = dict(model.model.named_parameters())[KEY].shape
    up, down = torch.full((rows, 1), value), torch.ones(1, columns)
    patched = model.clone()
    assert patched.add_patches({KEY: LoRAAdapter(set(), (up, down, 1.0, None, None, None))}, strength)
    return patched


def clip_lora(clip, strength):
    patched = clip.clone()
    weight = dict(clip.patcher.model.named_parameters())[CLIP_KEY]
    assert patched.add_patches({CLIP_KEY: ("diff", (torch.full_like(weight, 0.05),))}, strength)
    return patched


def at_layer(clip, layer):
    clone = clip.clone()
    clone.clip_layer(layer)
    return clone


def free_u(model):
    from comfy_extras.nodes_freelunch import FreeU_V2

    made = FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2) if hasattr(FreeU_V2, "execute") else None
    return made.args[0] if made is not None else FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0]


@pytest.fixture
def set_ups(tiny):
    """Name → (MODEL, CLIP, VAE), all built anew."""
    model, clip = (lambda: tiny.model("sd15")), (lambda: tiny.clip("sd15"))
    return {
        "plain": lambda: (model(), clip(), tiny.vae()),
        "LoRA .5": lambda: (lora(model(), 0.5), clip(), tiny.vae()),
        "LoRA 5": lambda: (lora(model(), 5.0), clip(), tiny.vae()),
        "another LoRA": lambda: (lora(model(), 0.5, 0.06), clip(), tiny.vae()),
        "two LoRAs": lambda: (lora(lora(model(), 0.5), 0.5), clip(), tiny.vae()),
        "another model": lambda: (tiny.model("sd15", 1), clip(), tiny.vae()),
        "FreeU": lambda: (free_u(model()), clip(), tiny.vae()),
        "another VAE": lambda: (model(), clip(), tiny.vae(7)),
        "another CLIP": lambda: (model(), tiny.clip("sd15", 9), tiny.vae()),
        "CLIP layer": lambda: (model(), at_layer(clip(), -2), tiny.vae()),
        "LoRA on CLIP": lambda: (model(), clip_lora(clip(), 0.5), tiny.vae()),
        "stronger LoRA on CLIP": lambda: (model(), clip_lora(clip(), 0.8), tiny.vae()),
    }


def free_u_of(model, b1):
    from comfy_extras.nodes_freelunch import FreeU_V2

    return node_made(FreeU_V2, model, b1, 1.4, 0.9, 0.2)


def sampled_as(model, sampling, zsnr=False):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return node_made(ModelSamplingDiscrete, model, sampling, zsnr)


def node_made(node, *given):
    return node.execute(*given).args[0] if hasattr(node, "execute") else node().patch(*given)[0]


def test_what_nodes_functions_and_objects_hold_tells_models_apart(tiny):
    from latent_critic.core.hosts.comfyui.identity import identity

    model = tiny.model("sd15")
    made = {
        "weak FreeU": lambda: free_u_of(model, 1.1),
        "FreeU": lambda: free_u_of(model, 1.5),
        "eps": lambda: sampled_as(model, "eps"),
        "v": lambda: sampled_as(model, "v_prediction"),
        "zsnr": lambda: sampled_as(model, "eps", True),
    }
    found = {name: identity(build(), None, None) for name, build in made.items()}
    assert len({told["model"] for told in found.values()}) == len(made)
    for name, build in made.items():
        assert identity(build(), None, None) == found[name]
        assert set(found[name]) == {"model"}


def test_what_cannot_be_read_is_named(tiny):
    from latent_critic.core.hosts.comfyui.identity import identity

    model, strange = tiny.model("sd15").clone(), torch.ones(3)
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * strange)
    assert "Tensor" in identity(model, None, None)["opaque"]


def scorer(parts):
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    return ZeroShot(ComfyBackbone(*parts), options=ZeroShotOptions(side=64, timesteps=(57,)))


def test_specs_are_equal_for_equal_set_ups_only(set_ups):
    specs = {name: scorer(build()).spec for name, build in set_ups.items()}
    for name, build in set_ups.items():
        again = scorer(build()).spec
        assert [other for other, spec in specs.items() if spec == again] == [name]


@pytest.mark.parametrize("name", ["LoRA .5", "LoRA on CLIP", "CLIP layer"])
def test_scoring_changes_no_spec(set_ups, name):
    parts = set_ups[name]()
    judge = scorer(parts)
    before = judge.spec
    batch = judge.score([torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))])
    assert batch.spec == judge.spec == before
    assert scorer(parts).spec == before  # read from weights that now lie loaded and patched


def test_it_is_read_without_loading_anything(set_ups):
    from comfy import model_management
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    before = list(model_management.current_loaded_models)
    found = ComfyBackbone(*set_ups["LoRA .5"]()).identity
    assert set(found) >= {"model", "clip", "clip_set_up", "vae"}
    assert all(loaded in before for loaded in model_management.current_loaded_models)  # some may be gone meanwhile
