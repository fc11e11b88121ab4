"""Whether the rows of one batch can be sampled together and still come out as each does alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.extra_samplers.uni_pc
import comfy.k_diffusion.sampling
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP

from .coupling_patches import unmeasured

#: Modules whose samplers were measured (tests/host/test_best_of.py runs every one beside its lone runs).
_KNOWN = (comfy.k_diffusion.sampling.__name__, comfy.extra_samplers.uni_pc.__name__, comfy.samplers.__name__)
#: Samplers that choose their steps by an error over the whole batch.
_COUPLED = ("sample_dpm_adaptive", "dpm_adaptive_function")
#: Caches that decide over the whole batch whether a step is computed at all.
_CACHES = ("easycache", "lazycache")
#: Models that draw the noise on their conditions from the sampling seed.
_SEEDED = ("SD_X4Upscaler",)


def why_alone(guider: Any, sampler: Any, latent: dict[str, Any]) -> str:
    """Why these must be sampled seed by seed, for the user; empty when they can be sampled together."""
    return _because_of_sampler(sampler, latent) or _because_of_model(guider) or _because_of_conditions(guider, latent)


def _because_of_sampler(sampler: Any, latent: dict[str, Any]) -> str:
    function = getattr(sampler, "sampler_function", None)
    if function is None or getattr(function, "__module__", None) not in _KNOWN:
        return "the sampler is not one of ComfyUI's own"
    options = getattr(sampler, "extra_options", {})
    if function.__name__ in _COUPLED:
        return "the sampler chooses its steps by all images of a batch together"
    if options.get("s_churn", 0) or options.get("noise_sampler") is not None:
        return "the sampler draws noise that is not of one seed"
    if getattr(sampler, "inpaint_options", {}).get("random") and "noise_mask" in latent:
        return "the sampler draws one noise for all masks of a batch"
    return ""


def _because_of_model(guider: Any) -> str:
    options = guider.model_options
    if options.get("context_handler") is not None:
        return "context windows run over the batch"
    wrappers = guider.model_patcher.wrappers
    kinds = (WrappersMP.OUTER_SAMPLE, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH)
    named = {key for kind in kinds for key in wrappers.get(kind, {})}
    if named & set(_CACHES):
        return "a step cache decides over all images of a batch together"
    if type(guider.model_patcher.model).__name__ in _SEEDED:
        return "the model draws noise on its conditions from the seed"
    if name := unmeasured(guider):
        return f"{name} was not measured to treat each image of a batch by itself"
    return ""


def _because_of_conditions(guider: Any, latent: dict[str, Any]) -> str:
    for condition in conditions(guider):
        if "unclip_conditioning" in condition or condition.get("noise_augmentation") or "seed" in condition:
            return "the model draws noise on its conditions from the seed"
        if any(_several(value) for value in condition.values()):
            return "a condition holds several images"
        control = condition.get("control")
        while control is not None:
            if _several(getattr(control, "cond_hint_original", None)):
                return "a ControlNet holds several images"
            control = getattr(control, "previous_controlnet", None)
    mask = latent.get("noise_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 5:
        return "the mask belongs to a video"
    return ""


def conditions(guider: Any) -> Iterator[dict[str, Any]]:
    """All conditions of a guider, whatever it calls them."""
    for conditions in guider.original_conds.values():
        yield from conditions


def _several(value: Any) -> bool:
    """Whether a condition's tensor, or one in its list, has more than one row."""
    if isinstance(value, list | tuple):
        return any(_several(one) for one in value)
    return isinstance(value, torch.Tensor) and value.ndim >= 2 and len(value) > 1
