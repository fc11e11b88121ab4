"""Tiny diffusers pipelines with the very weights of tiny_models.py's and tiny_transformers.py's models.

Names are translated by ComfyUI's and diffusers' own tables, not by ours. Needs ComfyUI and diffusers importable.
"""

import json

import comfy.sd1_clip
import comfy.text_encoders.sd3_clip
import comfy.utils
import torch
from latent_critic_tiny_models import ENCODERS

FAMILIES = ("sd15", "sd20_v", "sdxl", "sd3", "flux", "flux_schnell")
UNETS = {
    "sd15": {"cross_attention_dim": 64, "attention_head_dim": 8},
    "sd20_v": {"cross_attention_dim": 128, "use_linear_projection": True, "attention_head_dim": 1},
    "sdxl": {
        "cross_attention_dim": 160,
        "use_linear_projection": True,
        "attention_head_dim": 1,
        "transformer_layers_per_block": [1, 2],
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 96 + 6 * 256,
    },
}
TEXTS = {"sd15": ["l"], "sd20_v": ["h"], "sdxl": ["l", "g"], "sd3": ["l", "g"], "flux": ["l", "t5"]}


def pipeline(family, model, vae):
    """A pipeline of diffusers with the weights of a MODEL and a VAE; text encoders with random weights."""
    import diffusers

    shared = {"vae": _vae(vae, family), **_texts(family)}
    if family in ("sd3", "flux", "flux_schnell"):
        shared["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        shared["transformer"] = _transformer(family, model)
        kind = diffusers.StableDiffusion3Pipeline if family == "sd3" else diffusers.FluxPipeline
        return kind(**shared)
    prediction = "v_prediction" if family == "sd20_v" else "epsilon"
    shared["scheduler"] = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    shared["unet"] = _unet(family, model)
    if family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(**shared, add_watermarker=False)
    return diffusers.StableDiffusionPipeline(
        **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def _filled(module, names, state):
    """Weights of ComfyUI's network in a diffusers one, by ComfyUI's table of diffusers names."""
    own = module.state_dict()
    for name in own:
        if name == "pos_embed.pos_embed":
            own[name] = state["pos_embed"]
            continue
        found = names[name]
        key, place, change = (found, None, None) if isinstance(found, str) else (*found, None)[:3]
        value = state[key]
        if place is not None:
            value = value.narrow(*place)
        own[name] = (change(value) if change else value).clone()
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def _unet(family, model):
    from diffusers import UNet2DConditionModel

    common = {
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    network = model.model.diffusion_model
    sizes = {**common, **UNETS[family]}
    heads = next(module for name, module in network.named_modules() if name.endswith("attn2")).heads
    sizes["attention_head_dim"] = heads if family == "sd15" else (64 // 64, 128 // 64)
    return _filled(UNet2DConditionModel(**sizes), _unet_names(model), network.state_dict())


def _unet_names(model):
    return comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)


def _transformer(family, model):
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

    told, state = model.model.model_config.unet_config, model.model.diffusion_model.state_dict()
    if family == "sd3":
        network = SD3Transformer2DModel(
            sample_size=64, patch_size=2, in_channels=16, num_layers=3, attention_head_dim=64, num_attention_heads=2,
            joint_attention_dim=4096, caption_projection_dim=128, pooled_projection_dim=160, out_channels=16,
            pos_embed_max_size=64, dual_attention_layers=(0,), qk_norm="rms_norm",
        )  # fmt: skip
        names = comfy.utils.mmdit_to_diffusers({"depth": 2, "num_blocks": 3})
        last = "transformer_blocks.2.norm1_context.linear"  # ComfyUI's table takes depth for the number of blocks
        for end in ("weight", "bias"):
            key = f"joint_blocks.2.context_block.adaLN_modulation.1.{end}"
            names[f"{last}.{end}"] = (key, None, lambda value: torch.cat(value.chunk(2)[::-1]))
        first = [name for name in names if name.startswith("transformer_blocks.1.norm1_context")]
        for name in first:
            names[name] = name.replace(
                "transformer_blocks.1.norm1_context.linear", "joint_blocks.1.context_block.adaLN_modulation.1"
            )
        return _filled(network, names, state)
    network = FluxTransformer2DModel(
        in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=64, pooled_projection_dim=64, guidance_embeds=bool(told["guidance_embed"]),
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return _filled(network, comfy.utils.flux_to_diffusers(told), state)


def _vae(vae, family):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    flow = family in ("sd3", "flux", "flux_schnell")
    scale = {"sdxl": 0.13025, "sd3": 1.5305, "flux": 0.3611, "flux_schnell": 0.3611}.get(family, 0.18215)
    shift = {"sd3": 0.0609, "flux": 0.1159, "flux_schnell": 0.1159}.get(family)
    network = AutoencoderKL(
        latent_channels=16 if flow else 4, block_out_channels=(32,) * 4, layers_per_block=1, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=scale, shift_factor=shift,
    )  # fmt: skip
    state = convert_ldm_vae_checkpoint(dict(vae.first_stage_model.state_dict()), network.config)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _texts(family):
    """Text encoders, small, and ComfyUI's own copies of their tokenizers."""
    from pathlib import Path

    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5TokenizerFast,
    )

    torch.manual_seed(0)
    folder = Path(comfy.sd1_clip.__file__).parent
    found = {}
    for place, name in enumerate(TEXTS[family.removesuffix("_schnell")]):
        suffix = "" if place == 0 else f"_{place + 1}"
        if name == "t5":
            sizes = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 2, "vocab_size": 32128}
            tokens = T5TokenizerFast.from_pretrained(folder / "text_encoders" / "t5_tokenizer")
            network = T5EncoderModel(T5Config(**sizes))
        else:
            sizes = {**ENCODERS[f"clip_{name}"], "projection_dim": ENCODERS[f"clip_{name}"]["hidden_size"]}
            config = CLIPTextConfig(**sizes, eos_token_id=49407, bos_token_id=49406)
            projected = family == "sd3" or name == "g"
            network = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
            tokens = CLIPTokenizer.from_pretrained(folder / "sd1_tokenizer", model_max_length=77)
        found[f"text_encoder{suffix}"] = network.eval().requires_grad_(False)
        found[f"tokenizer{suffix}"] = tokens
    if family == "sd3":
        found |= {"text_encoder_3": None, "tokenizer_3": None}
    return found


def checkpoint(path, model, vae, clip):
    """One safetensors file of an SD 1.5 model under LDM's names, as such files are shared."""
    from safetensors.torch import save_file

    parts = {
        "model.diffusion_model.": model.model.diffusion_model,
        "first_stage_model.": vae.first_stage_model,
        "cond_stage_model.transformer.": clip.cond_stage_model.clip_l.transformer,
    }
    state = {
        prefix + name: value.contiguous().clone()
        for prefix, module in parts.items()
        for name, value in module.state_dict().items()
        if "text_projection" not in name
    }
    save_file(state, str(path))
    return path


def told_names(folder):
    """The class that a saved pipeline's index names."""
    return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
