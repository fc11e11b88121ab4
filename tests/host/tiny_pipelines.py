"""Tiny diffusers pipelines with the very weights of tiny_models.py's and tiny_transformers.py's models.

Names are translated by ComfyUI's and diffusers' own tables, not by ours. Needs ComfyUI and diffusers importable.
"""

import json
from pathlib import Path

import comfy.sd1_clip
import comfy.text_encoders.sd3_clip
import comfy.utils
import torch
from latent_critic_tiny_models import ENCODERS
from latent_critic_tiny_transformers import mistral_tokenizer

FAMILIES = (
    "sd15", "sd20_v", "sdxl", "sd3", "flux", "flux_schnell", "flux2", "flux2_klein", "wan21", "lumina2", "zimage",
    "qwen_image",
)  # fmt: skip
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
TEXTS = {
    "sd15": ["l"],
    "sd20_v": ["h"],
    "sdxl": ["l", "g"],
    "sd3": ["l", "g"],
    "flux": ["l", "t5"],
    "flux2": ["mistral"],
    "flux2_klein": ["qwen_28"],
    "wan21": ["umt5"],
    "lumina2": ["gemma"],
    "zimage": ["qwen"],
    "qwen_image": ["qwen_vl"],
}

LUMINA2_NAMES = {
    "time_caption_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_caption_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_caption_embed.caption_embedder": "cap_embedder",
    "norm_out.linear_1": "final_layer.adaLN_modulation.1",
    "norm_out.linear_2": "final_layer.linear",
    "norm1.linear": "adaLN_modulation.1",
    "norm1.norm": "attention_norm1",
    ".norm1.": ".attention_norm1.",
    ".norm2.": ".attention_norm2.",
    "attn.norm_q": "attention.q_norm",
    "attn.norm_k": "attention.k_norm",
    "attn.to_out.0": "attention.out",
    "linear_1.": "w1.",
    "linear_2.": "w2.",
    "linear_3.": "w3.",
}


def pipeline(family, model, vae):
    """A pipeline of diffusers with the weights of a MODEL and a VAE; text encoders with random weights."""
    import diffusers

    shared = {"vae": _vae(vae, family), **_texts(family)}
    if family in ("flux2", "flux2_klein", "wan21", "lumina2", "zimage", "qwen_image"):
        kind, make = {
            "flux2": (diffusers.Flux2Pipeline, _flux2),
            "flux2_klein": (diffusers.Flux2KleinPipeline, _flux2),
            "wan21": (diffusers.WanPipeline, _wan),
            "lumina2": (diffusers.Lumina2Pipeline, _lumina2),
            "zimage": (diffusers.ZImagePipeline, _zimage),
            "qwen_image": (diffusers.QwenImagePipeline, _qwen_image),
        }[family]
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        return kind(**shared, scheduler=scheduler, transformer=make(model))
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
    shared["unet"] = unet(family, model)
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


def unet(family, model):
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
    sizes["in_channels"] = network.input_blocks[0][0].in_channels
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


def _flux2(model):
    from diffusers import Flux2Transformer2DModel
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

    network = Flux2Transformer2DModel(
        in_channels=128, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=bool(model.model.model_config.unet_config["guidance_embed"]),
    )  # fmt: skip
    state = dict(model.model.diffusion_model.state_dict())
    network.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(state))
    return network.eval().requires_grad_(False)


def _wan(model):
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    network = WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=24, text_dim=64, freq_dim=32, ffn_dim=128, num_layers=3
    )
    network.load_state_dict(convert_wan_transformer_to_diffusers(dict(model.model.diffusion_model.state_dict())))
    return network.eval().requires_grad_(False)


def _lumina2(model):
    from diffusers import Lumina2Transformer2DModel

    network = Lumina2Transformer2DModel(
        in_channels=16, hidden_size=96, num_layers=3, num_refiner_layers=1, num_attention_heads=4, num_kv_heads=2,
        axes_dim_rope=(8, 8, 8), cap_feat_dim=64, ffn_dim_multiplier=0.25,
    )  # fmt: skip
    state = dict(model.model.diffusion_model.state_dict())
    own = {}
    for name in network.state_dict():
        published = name
        for theirs, ours in LUMINA2_NAMES.items():
            if theirs in published and "t_embedder" not in published and "final_layer" not in published:
                published = published.replace(theirs, ours)
        for part, (first, last) in {"to_q": (0, 96), "to_k": (96, 144), "to_v": (144, 192)}.items():
            if f"attn.{part}" in published:
                own[name] = state[published.replace(f"attn.{part}", "attention.qkv")][first:last]
        if name not in own:
            own[name] = state[published]
    network.load_state_dict(own)
    return network.eval().requires_grad_(False)


def _qwen_image(model):
    from diffusers import QwenImageTransformer2DModel

    network = QwenImageTransformer2DModel(
        num_layers=3, attention_head_dim=24, num_attention_heads=2, joint_attention_dim=64, axes_dims_rope=(8, 8, 8)
    )
    network.load_state_dict(model.model.diffusion_model.state_dict())
    return network.eval().requires_grad_(False)


def _zimage(model):
    from diffusers import ZImageTransformer2DModel
    from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
    from diffusers.models.transformers.transformer_z_image import FeedForward, TimestepEmbedder

    network = ZImageTransformer2DModel(
        in_channels=16, dim=256, n_layers=3, n_refiner_layers=1, n_heads=4, n_kv_heads=4, cap_feat_dim=64,
        axes_dims=[16, 24, 24], axes_lens=[1536, 512, 512],
    )  # fmt: skip
    network.t_embedder = TimestepEmbedder(256, mid_size=256)  # fixed at 1024 there, for networks of full width
    state = dict(model.model.diffusion_model.state_dict())
    for block in (*network.layers, *network.noise_refiner, *network.context_refiner):
        block.feed_forward = FeedForward(256, len(state["layers.0.feed_forward.w1.weight"]))
    network.load_state_dict(convert_z_image_transformer_checkpoint_to_diffusers(state))
    return network.eval().requires_grad_(False)


def _language_model(name):
    """A small one, and a tokenizer of ComfyUI's."""
    import transformers

    sizes = {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 32,
    }  # fmt: skip
    folder = Path(comfy.sd1_clip.__file__).parent / "text_encoders"
    if name == "mistral":
        return _mistral(sizes)
    if name == "qwen_vl":
        seeing = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64}
        spread = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
        config = transformers.Qwen2_5_VLConfig(
            text_config={**sizes, "vocab_size": 151936, "rope_parameters": spread}, vision_config=seeing
        )
        tokens = transformers.Qwen2TokenizerFast.from_pretrained(folder / "qwen25_tokenizer")
        return transformers.Qwen2_5_VLForConditionalGeneration(config), tokens
    if name in ("qwen", "qwen_28"):
        tokens = transformers.Qwen2TokenizerFast.from_pretrained(folder / "qwen25_tokenizer")
        tokens.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
            "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
        )
        if name == "qwen_28":
            small = {**sizes, "hidden_size": 16, "num_hidden_layers": 28, "head_dim": 128}
            small["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
            return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**small, vocab_size=151936)), tokens
        return transformers.Qwen3Model(transformers.Qwen3Config(**sizes, vocab_size=151936)), tokens
    tokens = transformers.T5TokenizerFast.from_pretrained(folder / "t5_tokenizer")  # Gemma's is not at hand
    return transformers.Gemma2Model(transformers.Gemma2Config(**sizes, vocab_size=32128)), tokens


def _mistral(sizes):
    """Mistral 3 with its eyes, and a processor: the tokenizer, a chat template, and what makes pictures into tokens."""
    import transformers

    template = (
        "{{ bos_token }}{% for m in messages %}{% set o, c = ('[SYSTEM_PROMPT]', '[/SYSTEM_PROMPT]') if "
        "m.role == 'system' else ('[INST]', '[/INST]') %}{{ o }}{% for part in m.content %}{{ part.text }}"
        "{% endfor %}{{ c }}{% endfor %}"
    )
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=mistral_tokenizer(), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    eyes = transformers.PixtralImageProcessor()
    processor = transformers.PixtralProcessor(image_processor=eyes, tokenizer=tokens, chat_template=template)
    text = {**sizes, "hidden_size": 16, "num_hidden_layers": 32, "head_dim": 128, "vocab_size": 400}
    seeing = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = transformers.Mistral3Config(
        text_config={**text, "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e9}},
        vision_config={**seeing, "head_dim": 8, "image_size": 28},
    )
    return transformers.Mistral3ForConditionalGeneration(config), processor


def _flux2_vae(vae):
    from diffusers import AutoencoderKLFlux2
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    network = AutoencoderKLFlux2(
        latent_channels=32, block_out_channels=(32,) * 4, layers_per_block=1, norm_num_groups=32
    )
    theirs = dict(vae.first_stage_model.state_dict())
    state = convert_ldm_vae_checkpoint(theirs, network.config)
    network.load_state_dict(state | {name: value for name, value in theirs.items() if name.startswith("bn.")})
    return network.eval().requires_grad_(False)


def _wan_vae(vae, family):
    from diffusers import AutoencoderKLQwenImage, AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    network = (AutoencoderKLWan if family == "wan21" else AutoencoderKLQwenImage)(base_dim=8)
    network.load_state_dict(convert_wan_vae_to_diffusers(dict(vae.first_stage_model.state_dict())))
    return network.eval().requires_grad_(False)


def _vae(vae, family):
    if family in ("wan21", "qwen_image"):
        return _wan_vae(vae, family)
    if "flux2" in family:
        return _flux2_vae(vae)
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    flow = family not in UNETS
    scale = {"sd15": 0.18215, "sd20_v": 0.18215, "sdxl": 0.13025, "sd3": 1.5305}.get(family, 0.3611)
    shift = {"sd3": 0.0609}.get(family, 0.1159) if flow else None
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
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5TokenizerFast,
        UMT5Config,
        UMT5EncoderModel,
    )

    torch.manual_seed(0)
    folder = Path(comfy.sd1_clip.__file__).parent
    found = {}
    for place, name in enumerate(TEXTS[family.removesuffix("_schnell")]):
        suffix = "" if place == 0 else f"_{place + 1}"
        if name in ("gemma", "mistral", "qwen", "qwen_28", "qwen_vl"):
            network, tokens = _language_model(name)
        elif name in ("t5", "umt5"):
            sizes = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 2, "vocab_size": 32128}
            tokens = T5TokenizerFast.from_pretrained(folder / "text_encoders" / "t5_tokenizer")
            network = T5EncoderModel(T5Config(**sizes)) if name == "t5" else UMT5EncoderModel(UMT5Config(**sizes))
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
