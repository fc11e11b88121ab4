"""Models that take a picture to start from (Flux Fill, Wan I2V …) are refused with one clear reason, in both hosts."""

import copy

import pytest
import torch

pytestmark = pytest.mark.host


@pytest.fixture
def comfy_model(comfyui, tiny):
    """`comfy_model(family, config, **sizes)` → a MODEL of the family's tiny sizes but for these."""
    import comfy.supported_models
    import latent_critic_tiny_transformers as transformers

    def make(family, config, **sizes):
        told = {**copy.deepcopy(transformers.CONFIGS[family]), **sizes}
        if "txt_ids_dims" in transformers.comfy.ldm.flux.model.FluxParams.__dataclass_fields__ and family == "flux":
            told["txt_ids_dims"] = []
        made = getattr(comfy.supported_models, config)(told)
        made.set_inference_dtype(torch.float32, None)
        return transformers.patcher(made.get_model({}, "", device=torch.device("cpu")), 0)

    return make


@pytest.mark.parametrize(
    ("family", "config", "sizes", "told"),
    [
        ("flux", "FluxInpaint", {"in_channels": 96}, "FluxInpaint with 96 input channels"),
        ("flux", "Flux", {"in_channels": 32}, "Flux with 32 input channels"),
        ("wan21", "WAN21_I2V", {"in_dim": 36, "model_type": "i2v"}, "WAN21_I2V with 36 input channels"),
    ],
)
def test_in_comfyui(comfy_model, family, config, sizes, told):
    from latent_critic.core.errors import UnsupportedFamily
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone

    with pytest.raises(UnsupportedFamily, match=f"got {told} and flow prediction. Load another checkpoint"):
        ComfyBackbone(comfy_model(family, config, **sizes))


def test_in_diffusers(comfyui, diffusers, tiny, tiny_pipelines):
    from types import SimpleNamespace

    from latent_critic.core.errors import BadInput, UnsupportedFamily
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone

    fill = diffusers.FluxTransformer2DModel(
        in_channels=384, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    small = {"num_attention_heads": 2, "attention_head_dim": 24, "text_dim": 16, "freq_dim": 32, "ffn_dim": 32}
    moving = diffusers.WanTransformer3DModel(**small, in_channels=36, image_dim=16, num_layers=1)
    for network, told in ((fill, "FluxSchnell with 96 input channels"), (moving, "WAN21_I2V with 36 input channels")):
        with pytest.raises(UnsupportedFamily, match=told):
            DiffusersBackbone(SimpleNamespace(transformer=network, vae=None))
    two = SimpleNamespace(transformer=diffusers.WanTransformer3DModel(**small, num_layers=1), transformer_2=fill)
    with pytest.raises(BadInput, match=r"two, for high and for low noise \(Wan 2.2\)"):
        DiffusersBackbone(two)
    flux2 = diffusers.Flux2Transformer2DModel(
        in_channels=256, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip
    with pytest.raises(UnsupportedFamily, match="Flux2 with 256 input channels"):
        DiffusersBackbone(SimpleNamespace(transformer=flux2))
    with pytest.raises(BadInput, match=r"one of .*Flux2Transformer2DModel.*; got SimpleNamespace with Linear"):
        DiffusersBackbone(SimpleNamespace(transformer=torch.nn.Linear(2, 2)))
