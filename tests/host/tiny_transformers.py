"""Tiny transformers of every family, their text encoders and VAEs with random weights, as ComfyUI's own objects.

Beside tiny_models.py, which is loaded first and whose builders hand over to these. Real tokenizers: ComfyUI's own where
it brings them along, else one trained here on a few sentences.
"""

import copy
import functools
import inspect
import io
from dataclasses import dataclass, field

import comfy.ldm.flux.model
import comfy.ldm.models.autoencoder
import comfy.ldm.wan.vae
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.text_encoders.flux
import comfy.text_encoders.lumina2
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import comfy.text_encoders.z_image
import torch
from latent_critic_tiny_models import ENCODERS, VAE, fill, patcher

FLUX = {
    "image_model": "flux",
    "axes_dim": [4, 6, 6],
    "num_heads": 4,
    "mlp_ratio": 4.0,
    "theta": 10000,
    "out_channels": 16,
    "qkv_bias": True,
    "in_channels": 16,
    "hidden_size": 64,
    "context_in_dim": 64,
    "patch_size": 2,
    "vec_in_dim": 64,
    "depth": 2,
    "depth_single_blocks": 2,
    "guidance_embed": True,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "cap_feat_dim": 64,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 4,
}
CONFIGS = {
    "sd3": {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "depth": 2,
        "num_blocks": 3,
        "input_size": None,
        "adm_in_channels": 160,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
        "num_patches": 64 * 64,
        "pos_embed_max_size": 64,
        "pos_embed_scaling_factor": None,
        "qk_norm": "rms",
        "x_block_self_attn_layers": [0],  # SD 3.5 medium: a second attention of the image alone
    },
    "flux": FLUX,
    "flux_schnell": {**FLUX, "guidance_embed": False},
    "flux2": {
        **FLUX,
        "image_model": "flux2",
        "axes_dim": [4, 4, 4, 4],
        "num_heads": 4,
        "mlp_ratio": 3.0,
        "theta": 2000,
        "out_channels": 128,
        "in_channels": 128,
        "context_in_dim": 48,
        "patch_size": 1,
        "vec_in_dim": None,
        "qkv_bias": False,
        "global_modulation": True,
        "mlp_silu_act": True,
        "ops_bias": False,
    },
    "lumina2": {
        **LUMINA,
        "dim": 96,
        "n_kv_heads": 2,
        "axes_dims": [8, 8, 8],
        "axes_lens": [300, 512, 512],
        "rope_theta": 10000.0,
        "ffn_dim_multiplier": 1.0,
    },
    "zimage": {
        **LUMINA,
        "dim": 256,
        "n_kv_heads": 4,
        "axes_dims": [16, 24, 24],
        "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0,
        "ffn_dim_multiplier": 1.0,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    },
    "qwen_image": {
        "image_model": "qwen_image",
        "in_channels": 64,
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "joint_attention_dim": 64,
        "axes_dims_rope": (8, 8, 8),
    },
    "wan21": {
        "image_model": "wan2.1",
        "model_type": "t2v",
        "dim": 96,
        "in_dim": 16,
        "out_dim": 16,
        "num_heads": 4,
        "ffn_dim": 128,
        "num_layers": 3,
        "patch_size": (1, 2, 2),
        "freq_dim": 32,
        "window_size": (-1, -1),
        "qk_norm": True,
        "cross_attn_norm": True,
        "eps": 1e-6,
        "text_dim": 64,
    },
}
CONFIGS["flux2_klein"] = {**CONFIGS["flux2"], "guidance_embed": False}
CLASSES = {
    "sd3": "SD3",
    "flux": "Flux",
    "flux_schnell": "FluxSchnell",
    "flux2": "Flux2",
    "flux2_klein": "Flux2",
    "lumina2": "Lumina2",
    "zimage": "ZImage",
    "qwen_image": "QwenImage",
    "wan21": "WAN21_T2V",
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_heads": 4, "num_layers": 2}
LLM = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
SENTENCES = ("a good photo of a cat", "a bad photo of a dog", "sharp and clean", "blurry, noisy and dark") * 20


def model(family, seed=0, dtype=torch.float32, compute=None, layers=None):
    """A ModelPatcher as a diffusion model loader gives it; ``compute`` and ``layers`` as in tiny_models.py."""
    sizes = copy.deepcopy(CONFIGS[family])
    if "txt_ids_dims" in comfy.ldm.flux.model.FluxParams.__dataclass_fields__ and "flux" in family:
        sizes["txt_ids_dims"] = [3] if "flux2" in family else []
    config = getattr(comfy.supported_models, CLASSES[family])(sizes)
    config.set_inference_dtype(dtype, compute)
    config.custom_operations = layers
    made = patcher(config.get_model({}, "", device=comfy.model_management.unet_offload_device()), seed)
    if family == "sd3":
        places = made.model.diffusion_model.pos_embed
        places.copy_(0.3 * torch.randn(places.shape, generator=torch.Generator().manual_seed(seed)))
    return made


@dataclass(frozen=True)
class Text:
    """A family's text encoders, small."""

    tokenizer: type
    network: type
    options: dict = field(default_factory=dict)
    tokenizer_data: dict = field(default_factory=dict)


def clip(family, seed=0):
    """A CLIP that fits the family's tiny model."""
    text = _text(family.removesuffix("_schnell"))
    options = {"dtype": torch.float32, **text.options}
    target = comfy.supported_models_base.ClipTarget(text.tokenizer, text.network)
    made = comfy.sd.CLIP(target, model_options=options, tokenizer_data=text.tokenizer_data)
    for part in made.cond_stage_model.modules():
        if hasattr(part, "visual"):
            del part.visual  # of Qwen 2.5 VL, full size, for pictures in the prompt
    fill(made.cond_stage_model, seed)
    return made


def _text(family):
    encoders, texts = comfy.text_encoders, {f"{name}_model_config": dict(sizes) for name, sizes in ENCODERS.items()}
    if family == "sd3":  # without T5, as many run it: its tokens are as wide as SD3's context, too wide for a test
        return Text(encoders.sd3_clip.SD3Tokenizer, encoders.sd3_clip.sd3_clip(t5=False), texts)
    if family == "flux":
        t5 = {**texts, "t5xxl_model_config": dict(T5)}
        return Text(encoders.flux.FluxTokenizer, encoders.flux.flux_clip(), t5)
    if family == "flux2":
        sizes = {**LLM, "hidden_size": 16, "num_hidden_layers": 32, "num_key_value_heads": 2, "vocab_size": 400}
        encoders.flux.load_mistral_tokenizer = _mistral
        network = encoders.flux.flux2_te()
        return Text(encoders.flux.Flux2Tokenizer, network, {"mistral3_24b_model_config": sizes})
    if family == "flux2_klein":  # which newer versions of ComfyUI have
        sizes = {**LLM, "hidden_size": 16, "num_hidden_layers": 28, "num_key_value_heads": 2}
        return Text(encoders.flux.KleinTokenizer, encoders.flux.klein_te(), {"qwen3_4b_model_config": sizes})
    if family == "lumina2":
        sizes = {**LLM, "num_key_value_heads": 2, "vocab_size": 120}
        network, tokens = encoders.lumina2.te(), {"spiece_model": _sentencepiece()}
        return Text(encoders.lumina2.LuminaTokenizer, network, {"gemma2_2b_model_config": sizes}, tokens)
    if family == "zimage":
        sizes = {**LLM, "num_key_value_heads": 2}
        return Text(encoders.z_image.ZImageTokenizer, encoders.z_image.te(), {"qwen3_4b_model_config": sizes})
    if family == "qwen_image":
        sizes = {**LLM, "num_key_value_heads": 2}
        network = encoders.qwen_image.te()
        return Text(encoders.qwen_image.QwenImageTokenizer, network, {"qwen25_7b_model_config": sizes})
    sizes, tokens = {**T5, "vocab_size": 120}, {"spiece_model": _sentencepiece()}
    return Text(encoders.wan.WanT5Tokenizer, encoders.wan.te(), {"umt5xxl_model_config": sizes}, tokens)


@functools.cache
def _sentencepiece():
    """A tokenizer of 120 pieces, trained here."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=120,
        model_type="bpe",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


def mistral_tokenizer():
    """Mistral's special tokens and single bytes."""
    import tokenizers

    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"]
    every = special + sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({piece: place for place, piece in enumerate(every)}, []))
    made.add_special_tokens(special)
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def _mistral(data):
    """What ComfyUI makes of Mistral's tokenizer file, of single bytes here: newer transformers read none themselves."""
    import transformers

    made = mistral_tokenizer()
    if (
        "tokenizer_object"
        in inspect.signature(comfy.text_encoders.flux.MistralTokenizerClass.from_pretrained).parameters
    ):
        return {"tokenizer_object": transformers.PreTrainedTokenizerFast(tokenizer_object=made)}
    return {"tokenizer_object": made, "legacy": False}


def vae(family, seed=0):
    """A VAE of the family's latents: an AutoencoderKL, or Wan's for the two families of video latents."""
    if family in ("wan21", "qwen_image"):
        network = comfy.ldm.wan.vae.WanVAE(
            dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
            temperal_downsample=[False, True, True], dropout=0.0,
        )  # fmt: skip
        return comfy.sd.VAE(sd=dict(fill(network, seed).state_dict()), dtype=torch.float32)
    channels = 32 if "flux2" in family else 16
    config = {**VAE, "z_channels": channels, "batch_norm_latent": "flux2" in family}
    params = {"ddconfig": config, "embed_dim": channels}
    network = fill(comfy.ldm.models.autoencoder.AutoencoderKL(**copy.deepcopy(params)), seed)
    packed = 1 if network.bn is None else 2  # Flux.2's packs 2 × 2 latent pixels and normalises them
    if packed > 1:
        draw = torch.Generator().manual_seed(seed)
        network.bn.running_mean.copy_(0.1 * torch.randn(4 * channels, generator=draw))
        network.bn.running_var.copy_(0.5 + torch.rand(4 * channels, generator=draw))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    made = comfy.sd.VAE(sd=state, config={"params": params}, dtype=torch.float32)
    made.latent_channels, made.downscale_ratio, made.upscale_ratio = channels * packed**2, 8 * packed, 8 * packed
    return made
