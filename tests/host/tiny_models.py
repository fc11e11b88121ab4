"""Tiny diffusion models, text encoders and VAEs with random weights, as ComfyUI's own objects.

Real classes of a real ComfyUI, only smaller: a test may be quick, but nothing in it is a mock. Import after ComfyUI is
on the path; pytest is not needed.
"""

import copy
import importlib
from dataclasses import dataclass, field

import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.text_encoders.sd2_clip
import torch

UNET = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "channel_mult": [1, 2],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": 64,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
}
THREE_SCALES = {
    "num_res_blocks": [1, 1, 1],
    "channel_mult": [1, 2, 2],
    "transformer_depth": [1, 1, 0],
    "transformer_depth_output": [1, 1, 1, 1, 0, 0],
}
ENCODERS = {
    "clip_l": {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128},
    "clip_h": {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 128},
    "clip_g": {"num_hidden_layers": 3, "hidden_size": 96, "num_attention_heads": 2, "intermediate_size": 128},
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


@dataclass(frozen=True)
class Row:
    """How one family's tiny model differs."""

    config: str
    unet: dict = field(default_factory=dict)
    v_prediction: bool = False
    text: str = "clip_l"


FAMILIES = {
    "sd15": Row("SD15"),
    "sd15_inpaint": Row("SD15", {"in_channels": 9}),
    "sd15_three_scales": Row("SD15", THREE_SCALES),
    "unknown": Row("SD15_instructpix2pix", {"in_channels": 8}),
    "sd20": Row("SD20", {"use_linear_in_transformer": True, "context_dim": 128}, text="clip_h"),
    "sd20_v": Row("SD20", {"use_linear_in_transformer": True, "context_dim": 128}, v_prediction=True, text="clip_h"),
    "sdxl": Row(
        "SDXL",
        {
            "use_linear_in_transformer": True,
            "context_dim": 160,
            "adm_in_channels": 96 + 6 * 256,
            "num_classes": "sequential",
            "transformer_depth": [0, 2],
            "transformer_depth_output": [0, 0, 2, 2],
            "transformer_depth_middle": 2,
        },
        text="clip_l+clip_g",
    ),
}


def fill(module, seed=0):
    """Random weights in place (ComfyUI's layers skip initialisation): scaled by fan-in, norms 1, biases small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2:
                values = torch.randn(parameter.shape, generator=generator) * 0.7 / parameter[0].numel() ** 0.5
                parameter.copy_(values * (10.0 if "embedding" in name else 1.0))
            elif name.endswith(("weight", "scale")):
                parameter.fill_(1.0)
            else:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module


def model(family="sd15", seed=0, dtype=torch.float32, compute=None, layers=None):
    """A ModelPatcher as a checkpoint loader gives it.

    ``compute``: weights are cast to it as they are used; ``layers``: classes of layers in place of ComfyUI's.
    """
    if family not in FAMILIES:
        return _transformers().model(family, seed, dtype, compute, layers)
    row = FAMILIES[family]
    config = getattr(comfy.supported_models, row.config)(copy.deepcopy({**UNET, **row.unet}))
    config.set_inference_dtype(dtype, compute)
    config.custom_operations = layers
    state = {}
    if row.v_prediction:  # the statistic by which ComfyUI tells SD 2.x's v-prediction checkpoints
        state = {"output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.linspace(-1, 1, 64)}
    return patcher(config.get_model(state, "", device=comfy.model_management.unet_offload_device()), seed)


def _transformers():
    """The builders of the other families, loaded beside this file."""
    return importlib.import_module("latent_critic_tiny_transformers")


def patcher(network, seed):
    """Random weights in a model of ComfyUI's, and the patcher around it."""
    fill(network.diffusion_model, seed)
    network.eval()
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # as its loaders take it
    return kind(network, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())


def clip(family="sd15", seed=0):
    """A CLIP that fits the family's tiny model: real tokenizer, three layers."""
    if family not in FAMILIES:
        return _transformers().clip(family, seed)
    text = FAMILIES[family].text
    tokenizer, network = {
        "clip_l": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        "clip_h": (comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.text_encoders.sd2_clip.SD2ClipModel),
        "clip_l+clip_g": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
    }[text]
    options = {f"{name}_model_config": dict(sizes) for name, sizes in ENCODERS.items()}
    made = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(tokenizer, network), model_options={**options, "dtype": torch.float32}
    )
    fill(made.cond_stage_model, seed)
    return made


def vae(seed=0, channels=4, family="sd15"):
    """An AutoencoderKL of the usual stride 8, or the one of a transformer's family."""
    if family not in FAMILIES:
        return _transformers().vae(family, seed)
    config = {**VAE, "z_channels": channels}
    network = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=dict(config), embed_dim=channels)
    state = {name: value.clone() for name, value in fill(network, seed).state_dict().items()}
    made = comfy.sd.VAE(
        sd=state, config={"params": {"ddconfig": dict(config), "embed_dim": channels}}, dtype=torch.float32
    )
    made.latent_channels = channels
    return made


def sd15_checkpoint(path, seed=0):
    """Write a checkpoint of 325 MiB that the stock CheckpointLoaderSimple takes for SD 1.5.

    Two scales with one block each, a full-size CLIP-L and a TAESD, random weights in fp16.
    """
    import comfy.taesd.taesd
    import comfy.utils

    sizes = {"model_channels": 320, "channel_mult": [1, 1], "context_dim": 768, "num_heads": 8}
    config = comfy.supported_models.SD15({**UNET, **sizes})
    config.set_inference_dtype(torch.float16, None)
    network = config.get_model({}, "", device="cpu").diffusion_model
    text = comfy.sd1_clip.SD1ClipModel(device="cpu", dtype=torch.float16)
    parts = {
        "model.diffusion_model.": fill(network, seed),
        "cond_stage_model.transformer.": fill(text.clip_l.transformer, seed + 1),
        "first_stage_model.": fill(comfy.taesd.taesd.TAESD(), seed + 2),
    }
    state = {
        prefix + name: value.to(torch.float16).contiguous()
        for prefix, module in parts.items()
        for name, value in module.state_dict().items()
        if name not in ("text_projection.weight", "vae_scale", "vae_shift")
    }
    comfy.utils.save_torch_file(state, str(path))
    return path
