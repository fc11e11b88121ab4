"""The embedded model's files as ComfyUI's own MODEL, CLIP and VAE, for stock nodes and for scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from comfy import model_management
from torch import Tensor

from ...errors import BadInput
from ...nets import critic_ldm


class CriticLDM(comfy.supported_models.SD15):
    """SD 1's architecture, smaller, on latents of eight channels. Recognised by this class's name, never by weights."""

    def inpaint_model(self) -> bool:
        """ComfyUI takes more than four input channels for an inpainting checkpoint; these are all latents."""
        return False


class CriticLatent(comfy.latent_formats.LatentFormat):
    """The embedded autoencoder's latents, brought to unit spread."""

    def __init__(self, channels: int, scale_factor: float) -> None:
        self.latent_channels, self.scale_factor = channels, scale_factor


def load_model(folder: Path = critic_ldm.SHIPPED) -> Any:
    """The U-Net as a ModelPatcher (MODEL).

    Raises:
        UnreadableFile: a file is missing or damaged.
        BadInput: weights that do not belong to the architecture that their configuration names.
    """
    told, weights = critic_ldm.read_config(folder, "unet"), critic_ldm.read_weights(folder, "unet")
    config = CriticLDM(_unet_config(told))
    config.unet_config["num_heads"] = told["attention_head_dim"]
    config.latent_format = CriticLatent(told["in_channels"], critic_ldm.read_config(folder, "vae")["scaling_factor"])
    device = model_management.get_torch_device()
    size = sum(tensor.numel() for tensor in weights.values())
    dtype = model_management.unet_dtype(model_params=size, supported_dtypes=config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, model_management.unet_manual_cast(dtype, device))
    offload = model_management.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    _fill(model.diffusion_model, _ldm_names(weights, config.unet_config))
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def load_clip(folder: Path = critic_ldm.SHIPPED) -> Any:
    """The text encoder and ComfyUI's own CLIP tokenizer as CLIP.

    Raises:
        UnreadableFile: a file is missing or damaged.
        BadInput: weights that do not belong to the architecture that their configuration names.
    """
    told, weights = critic_ldm.read_config(folder, "text_encoder"), critic_ldm.read_weights(folder, "text_encoder")
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    wanted = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    size = sum(tensor.numel() for tensor in weights.values())
    clip = comfy.sd.CLIP(
        target,
        parameters=size,
        model_options={"clip_l_model_config": {name: told[name] for name in wanted}},
    )
    # SD 1 uses no projection of the pooled text; ComfyUI's encoder holds one all the same.
    weights["text_projection.weight"] = torch.eye(told["hidden_size"])
    _fill(clip.cond_stage_model.clip_l.transformer, weights)
    return clip


def load_vae(folder: Path = critic_ldm.SHIPPED) -> Any:
    """The autoencoder as VAE, through ComfyUI's own recognition of TAESD's architecture.

    Raises:
        UnreadableFile: a file is missing or damaged.
    """
    renamed: dict[str, Tensor] = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    for name, tensor in critic_ldm.read_weights(folder, "vae").items():
        half, _, place, rest = name.split(".", 3)
        # ComfyUI counts the decoder's soft bound as a layer.
        renamed[f"taesd_{half}.{int(place) + (half == 'decoder')}.{rest}"] = tensor
    vae = comfy.sd.VAE(sd=renamed)
    vae.throw_exception_if_invalid()
    return vae


def _unet_config(told: dict[str, Any]) -> dict[str, Any]:
    channels, blocks = told["block_out_channels"], told["layers_per_block"]
    levels = len(channels)
    return {
        "image_size": told["sample_size"],
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "in_channels": told["in_channels"],
        "out_channels": told["out_channels"],
        "model_channels": channels[0],
        "channel_mult": [wide // channels[0] for wide in channels],
        "num_res_blocks": [blocks] * levels,
        "transformer_depth": [1] * (blocks * levels),
        "transformer_depth_output": [1] * ((blocks + 1) * levels),
        "transformer_depth_middle": 1,
        "context_dim": told["cross_attention_dim"],
        "use_linear_in_transformer": False,
        "use_temporal_resblock": False,
        "use_temporal_attention": False,
        "use_checkpoint": False,
    }


def _ldm_names(weights: dict[str, Tensor], unet_config: dict[str, Any]) -> dict[str, Tensor]:
    names = comfy.utils.unet_to_diffusers(unet_config)
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise BadInput("a U-Net of the SD 1 kind", f"a weight {unknown[0]}", "Train it with latent-critic train ldm.")
    return {names[name]: tensor for name, tensor in weights.items()}


def _fill(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        got = str(error).splitlines()[-1].strip()
        raise BadInput("weights that fit their config.json", got, "Take all files from one training run.") from error
