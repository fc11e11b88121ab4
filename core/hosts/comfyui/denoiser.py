"""One denoiser call on the user's MODEL, through ComfyUI's own guider and sampler.

That way LoRA, ModelSampling nodes, hooks, wrappers, loading, device moves and clean-up are ComfyUI's own. What belongs
to guidance is left out: a judge wants the network's estimate, not what PAG or a rescaled CFG makes of it. So are
context windows, which split a batch of frames: the rows here are pictures that have nothing to do with each other.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy import model_management, model_patcher, samplers
from torch import Tensor

from ...backbone.contracts import Conditioning
from ...backbone.eager import uncompiled
from . import pictures
from .gradients import usable
from .randomness import repeatable
from .tapping import PROBE_KEY

_GUIDANCE = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "disable_cfg1_optimization",
    "denoise_mask_function",
)
_WINDOWS = ("ContextWindows_prepare_sampling", "ContextWindows_sampler_sample")
#: A probe on the user's model is for the user's samplings: it does not watch a judge at work.
_WRAPPERS = (*_WINDOWS, PROBE_KEY)


class _Unguided(samplers.CFGGuider):
    """A guider with a positive condition only."""

    def set_positive(self, positive: list[Any]) -> None:
        self.inner_set_conds({"positive": positive})


def own_clone(model: Any) -> model_patcher.ModelPatcher:
    """A clone of the user's model (it shares the weights) without guidance, context windows and probes."""
    clone = model.clone()
    for name in (*_GUIDANCE, "context_handler"):
        clone.model_options.pop(name, None)
    for wrappers in clone.wrappers.values():
        for key in _WRAPPERS:
            wrappers.pop(key, None)
    return clone


def host_conditions(conditioning: Conditioning, guidance: float | None = None) -> list[Any]:
    """A Conditioning as ComfyUI's CONDITIONING, all rows in one entry, with the distilled guidance where one is due."""
    values = {**conditioning.extra, **conditioning.row_extra, "pooled_output": conditioning.pooled}
    if guidance is not None:
        values["guidance"] = guidance
    return [[conditioning.tokens, values]]


def denoise(
    patcher: Any, z_t: Tensor, sigma: Tensor, conditioning: Conditioning, guidance: float | None = None
) -> Tensor:
    """Noised latents [N, C, h, w] at sigma [N] → the clean estimate, on the model's device.

    Patches that draw random numbers (token merging, tiling) draw the same ones in every call.

    Raises:
        comfy.model_management.InterruptProcessingException: the user pressed cancel; never swallowed here.
    """
    found: list[Tensor] = []

    def call_once(model_k: Any, x: Tensor, sigmas: Tensor, **rest: Any) -> Tensor:
        model_management.throw_exception_if_processing_interrupted()
        noised = model_k.noise  # as given: `x` has been scaled by the sampler's rule for pure noise
        found.append(model_k(noised, sigma.to(noised.device, torch.float32), **rest["extra_args"]))
        return noised

    wanted = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    conditions = host_conditions(conditioning, guidance)
    guider = _Unguided(patcher)
    guider.set_positive(usable(conditions) if wanted else conditions)
    guider.set_cfg(1.0)
    levels = torch.tensor([float(sigma.max()), 0.0])
    with uncompiled(), repeatable(patcher.load_device), torch.set_grad_enabled(wanted and z_t.requires_grad):
        noise = pictures.to_host(patcher.model, z_t)
        guider.sample(noise, torch.zeros_like(noise), samplers.KSAMPLER(call_once), levels, disable_pbar=True, seed=0)
    return pictures.to_pictures(found[0])
