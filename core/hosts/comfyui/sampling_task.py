"""What many seeds are sampled with: KSampler's widgets, or GUIDER, SAMPLER and SIGMAS, as one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch

from ...errors import BadInput
from .coupling import why_alone
from .memory import MARGIN

_RATIOS = ("downscale_ratio_spacial", "downscale_ratio_temporal")


@dataclass(frozen=True, slots=True)
class Task:
    """What is sampled.

    Attributes:
        guider: ComfyUI's GUIDER: a model with its conditions.
        sampler: Its SAMPLER.
        sigmas: Its SIGMAS.
        latent: A LATENT of one row or more, each of which every seed is sampled on.
        seeds: All different.
        at_once: At most so many rows through the denoiser together; 0: as many as fit.
        dtype: Of the finished latents; ``None`` leaves them as the sampler gives them.
    """

    guider: Any
    sampler: Any
    sigmas: torch.Tensor
    latent: dict[str, Any]
    seeds: tuple[int, ...]
    at_once: int = 0
    dtype: torch.dtype | None = None

    @property
    def steps(self) -> int:
        """Steps of the schedule."""
        return max(0, len(self.sigmas) - 1)

    @property
    def per_seed(self) -> int:
        """Candidates per seed: rows of the latent."""
        return len(self.latent["samples"])

    @property
    def why_alone(self) -> str:
        """Why every seed is sampled by itself; empty when their rows are sampled together."""
        several = len(self.seeds) * self.per_seed > 1
        return why_alone(self.guider, self.sampler, self.latent) if several else ""


def ksampler_task(
    model: Any,
    positive: Any,
    negative: Any,
    latent: dict[str, Any],
    seeds: Sequence[int],
    *,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
    at_once: int = 0,
) -> Task:
    """What KSampler does with the same widgets, as a task."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    schedule = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    sampler = comfy.samplers.sampler_object(sampler_name)
    # KSampler, other than SamplerCustomAdvanced, hands on latents in ComfyUI's own type where there is one.
    dtype = getattr(comfy.model_management, "intermediate_dtype", lambda: None)()
    return Task(guider, sampler, schedule.sigmas, _ready(model, latent), tuple(seeds), at_once, dtype)


def custom_task(
    guider: Any, sampler: Any, sigmas: torch.Tensor, latent: dict[str, Any], seeds: Sequence[int], at_once: int = 0
) -> Task:
    """What SamplerCustomAdvanced does with the same inputs, as a task."""
    return Task(guider, sampler, sigmas, _ready(guider.model_patcher, latent), tuple(seeds), at_once)


def rows_at_once(task: Task) -> int:
    """How many rows go through the denoiser together: what the device holds beside the weights, all if it can."""
    patcher = task.guider.model_patcher
    one = patcher.model.memory_required([2, *task.latent["samples"].shape[1:]]) * MARGIN
    total = comfy.model_management.get_total_memory(patcher.load_device)
    reserve = comfy.model_management.minimum_inference_memory()
    fit = int((total - patcher.model_size() - reserve) // max(1.0, one))
    return max(1, min(len(task.seeds) * task.per_seed, fit))


def masks(task: Task) -> torch.Tensor | None:
    """The inpainting mask of every row: a shorter stack repeats over the latent's rows, as it does for one seed."""
    mask = task.latent.get("noise_mask")
    if mask is None or len(task.seeds) == 1:
        return mask
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    each = comfy.utils.repeat_to_batch_size(flat, task.per_seed)
    return each.repeat(len(task.seeds), 1, 1, 1)


def _ready(model: Any, latent: dict[str, Any]) -> dict[str, Any]:
    """A LATENT with as many channels as the model wants, as KSampler makes it.

    Raises:
        BadInput: a latent of several parts, such as video with sound, or of several frames.
    """
    if getattr(latent["samples"], "is_nested", False):
        raise BadInput("a latent that one image is decoded from", "one of several parts", "Sample it with KSampler.")
    shape = tuple(latent["samples"].shape)
    if len(shape) == 5 and shape[2] > 1:
        raise BadInput(
            "a latent of one image [N, C, h, w]",
            f"{shape[2]} frames {list(shape)}",
            "Video is not supported: sample it with KSampler.",
        )
    ratios = {name: latent[name] for name in _RATIOS if name in latent}
    plain = {name: value for name, value in latent.items() if name not in _RATIOS}
    return {**plain, "samples": comfy.sample.fix_empty_latent_channels(model, latent["samples"], **ratios)}
