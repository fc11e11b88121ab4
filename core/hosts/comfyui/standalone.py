"""A model of random weights and the shape of SD 1.5, as ComfyUI's own objects: to time, not to look at."""

from __future__ import annotations

from typing import Any

import torch

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
