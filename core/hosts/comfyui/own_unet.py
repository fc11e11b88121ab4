"""A U-Net and a VAE of our own, by diffusers' names, as ComfyUI's MODEL and VAE: loaded when used, unloaded when the
room is needed, like any other model there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.diffusers_convert
import comfy.ldm.models.autoencoder
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy import model_management
from torch import Tensor

from ...errors import BadInput

_REMEDY = "Download the file again; it must be a fine-tuned SD 1.5."


@dataclass(frozen=True, slots=True)
class OwnSizes:
    """Sizes of the two networks; SD 1.5's.

    Attributes:
        channels: First level's.
        multiples: Of the levels.
        blocks: Residual blocks a level.
        depths: Transformers of every down block, in forward order.
        depths_up: Of every up block, as ComfyUI lists them.
        context: Width of the text.
        heads: Of every attention.
        vae: First level's channels of the VAE.
    """

    channels: int = 320
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    depths: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 0, 0)
    depths_up: tuple[int, ...] = (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    context: int = 768
    heads: int = 8
    vae: int = 128
    vae_multiples: tuple[int, ...] = field(default=(1, 2, 4, 4))
    vae_blocks: int = 2

    def unet_config(self) -> dict[str, Any]:
        """In ComfyUI's words."""
        return {
            "image_size": 32,
            "use_spatial_transformer": True,
            "legacy": False,
            "adm_in_channels": None,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": self.channels,
            "channel_mult": list(self.multiples),
            "num_res_blocks": [self.blocks] * len(self.multiples),
            "transformer_depth": list(self.depths),
            "transformer_depth_output": list(self.depths_up),
            "transformer_depth_middle": 1,
            "context_dim": self.context,
            "use_linear_in_transformer": False,
            "use_temporal_resblock": False,
            "use_temporal_attention": False,
            "use_checkpoint": False,
        }


SD15 = OwnSizes()


def own_model(weights: Mapping[str, Tensor], sizes: OwnSizes = SD15) -> Any:
    """A U-Net's state dict → MODEL (a ModelPatcher), in the dtype that ComfyUI chooses for the device.

    Raises:
        BadInput: names the first keys that are missing, unknown, or of a wrong shape.
    """
    config = comfy.supported_models.SD15(sizes.unet_config())
    config.unet_config["num_heads"] = sizes.heads
    device = model_management.get_torch_device()
    count = sum(value.numel() for value in weights.values())
    dtype = model_management.unet_dtype(model_params=count, supported_dtypes=config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, model_management.unet_manual_cast(dtype, device))
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    model = config.get_model({}, "", device=torch.device("meta"))
    unet = model.diffusion_model
    known = set(unet.state_dict())
    # ComfyUI's table also names a downsampler of the last level and an upsampler of the finest, which do not exist.
    ours = {theirs: name for theirs, name in names.items() if name in known}
    _check("unet", {theirs: unet.state_dict()[name].shape for theirs, name in ours.items()}, weights)
    unet.load_state_dict({ours[name]: value.to(dtype) for name, value in weights.items()}, assign=True)
    unet.eval().requires_grad_(False)
    return comfy.model_patcher.ModelPatcher(
        model, load_device=device, offload_device=model_management.unet_offload_device()
    )


def own_vae(weights: Mapping[str, Tensor], sizes: OwnSizes = SD15) -> Any:
    """An AutoencoderKL's state dict → VAE.

    Raises:
        BadInput: names the first keys that are missing, unknown, or of a wrong shape.
    """
    config = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": sizes.vae,
        "ch_mult": list(sizes.vae_multiples),
        "num_res_blocks": sizes.vae_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    params = {"ddconfig": config, "embed_dim": 4}
    with torch.device("meta"):
        expected = comfy.ldm.models.autoencoder.AutoencoderKL(**params).state_dict()
    renamed = comfy.diffusers_convert.convert_vae_state_dict(dict(weights))
    theirs: dict[str, str] = {str(ours): name for ours, name in zip(renamed, weights, strict=True)}
    shapes = {theirs.get(str(name), str(name)): value.shape for name, value in expected.items()}
    _check("vae", shapes, {theirs[name]: value for name, value in renamed.items()})
    return comfy.sd.VAE(sd=renamed, config={"params": params})


def _check(part: str, expected: Mapping[str, torch.Size], weights: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    for what, names in (("missing", missing), ("unknown", unknown)):
        if names:
            got = f"{len(names)} {what}: {', '.join(f'{part}.{name}' for name in names[:4])}"
            raise BadInput(f"every key of SD 1.5's {part} and no other", got, _REMEDY)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise BadInput(f"{part}.{name} {list(shape)}", str(list(weights[name].shape)), _REMEDY)
