"""Models outside of a workflow, as ComfyUI's own objects: a checkpoint's file, or random weights to time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import UnreadableFile

#: SD 1.5 with fewer and narrower blocks: a forward of 12 rows at 256 px takes seconds on two cores.
_UNET = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 96,
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [1, 1, 1],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1],
    "channel_mult": [1, 2, 4],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": 256,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
}
_CLIP = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
_VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 64,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def load_checkpoint(path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a checkpoint's file, as ComfyUI's Load Checkpoint gives them.

    Raises:
        UnreadableFile: missing, damaged, of no model that this ComfyUI knows, or without CLIP or VAE.
    """
    import comfy.sd
    from safetensors import SafetensorError

    remedy = "Name a whole checkpoint: model, CLIP and VAE in one file."
    if not path.is_file():
        raise UnreadableFile(f"a checkpoint at {path}", "no such file", remedy)
    try:
        found = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise UnreadableFile(f"a checkpoint at {path.name}", f"{type(error).__name__}: {error}", remedy) from error
    missing = [name for name, part in zip(("MODEL", "CLIP", "VAE"), found, strict=True) if part is None]
    if missing:
        raise UnreadableFile(f"a whole checkpoint at {path.name}", f"no {', '.join(missing)} in it", remedy)
    return found


def random_checkpoint() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of the shape of SD 1.5, smaller, with random weights: good for timing only."""
    import comfy.ldm.models.autoencoder
    import comfy.sd
    import comfy.sd1_clip
    import comfy.supported_models
    import comfy.supported_models_base
    from comfy import model_management, model_patcher

    config = comfy.supported_models.SD15(dict(_UNET))
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model({}, "", device=model_management.unet_offload_device())
    _fill(network.diffusion_model)
    model = model_patcher.ModelPatcher(
        network.eval(), model_management.get_torch_device(), model_management.unet_offload_device()
    )
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": dict(_CLIP), "dtype": torch.float32})
    _fill(clip.cond_stage_model)
    autoencoder = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=dict(_VAE), embed_dim=4)
    _fill(autoencoder)
    params = {"ddconfig": dict(_VAE), "embed_dim": 4}
    vae = comfy.sd.VAE(sd=autoencoder.state_dict(), config={"params": params}, dtype=torch.float32)
    return model, clip, vae


def _fill(module: torch.nn.Module) -> None:
    """Random weights scaled by fan-in, norms 1, biases 0 (ComfyUI's layers skip initialisation)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2:
                scale = 0.7 / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            else:
                parameter.fill_(1.0 if name.endswith(("weight", "scale")) else 0.0)
