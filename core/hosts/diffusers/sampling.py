"""Sampling with looks on the way: the predicted clean latents of a diffusers pipeline, seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from ...errors import BadInput
from ..short_run import leaps


@torch.no_grad()
def predicted_clean(
    pipeline: StableDiffusionPipeline,
    prompt: str,
    seeds: Sequence[int],
    *,
    size: int,
    steps: int,
    guidance: float,
    looks: Mapping[int, int] | None = None,
) -> Iterator[Tensor]:
    """Sample one batch, one row per seed, and tell on the way what the finished latents would be.

    Args:
        pipeline: A Stable Diffusion pipeline with a deterministic scheduler (DDIM).
        prompt: One prompt for all rows; the unconditioned half has the empty one.
        seeds: Each draws its own starting noise, so that a row does not depend on its batch-mates.
        size: Side of the pictures in pixels, a multiple of the stride.
        steps: Denoising steps.
        guidance: Classifier-free guidance; 1 computes no unconditioned half.
        looks: After which steps (from 1 on) to tell → denoiser calls of a short run to the end that the look takes
            from where the rows stand, at the levels that :func:`leaps` tells; 0: the prediction of that step. The rows
            themselves go on as without it. ``None``: the prediction of every step.

    Yields:
        Clean latents [N, C, size / stride, size / stride] at each look; the finished ones once more.

    Raises:
        BadInput: no seeds, or no steps.
    """
    if not seeds or steps < 1:
        raise BadInput("at least one seed and one step", f"{len(seeds)} seeds, {steps} steps", "Raise them.")
    scheduler: Any = pipeline.scheduler
    scheduler.set_timesteps(steps, device=pipeline.device)
    ask = _asking(pipeline, prompt, len(seeds), guidance)
    z = _noise(pipeline, seeds, size) * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps, 1):
        stepped = scheduler.step(ask(z, t), t, z)
        if looks is None or step in looks:
            ahead = looks[step] if looks else 0
            yield _short_run(scheduler, ask, z, stepped.pred_original_sample, step, ahead)
        z = stepped.prev_sample
    yield z


def _asking(
    pipeline: StableDiffusionPipeline, prompt: str, rows: int, guidance: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """(z_t, t) → guided eps."""
    scheduler: Any = pipeline.scheduler
    words, nothing = pipeline.encode_prompt(prompt, pipeline.device, 1, guidance != 1, negative_prompt="")
    texts = [words] if nothing is None else [nothing, words]
    context = torch.cat([text.expand(rows, -1, -1) for text in texts])

    def ask(z: Tensor, t: Tensor) -> Tensor:
        doubled = scheduler.scale_model_input(torch.cat([z] * len(texts)), t)
        eps = pipeline.unet(doubled, t, encoder_hidden_states=context).sample
        if len(texts) == 1:
            return eps
        without, told = eps.chunk(2)
        return without + guidance * (told - without)

    return ask


def _short_run(
    scheduler: Any, ask: Callable[[Tensor, Tensor], Tensor], z: Tensor, clean: Tensor, step: int, ahead: int
) -> Tensor:
    """DDIM (Song et al., eq. 12 with eta 0) in a few leaps from a step's state and prediction: clean latents."""
    t = scheduler.timesteps[step - 1]
    for level in leaps(step, len(scheduler.timesteps), ahead):
        alpha, to = scheduler.alphas_cumprod[t], scheduler.timesteps[level]
        eps = (z - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        z = scheduler.alphas_cumprod[to].sqrt() * clean + (1 - scheduler.alphas_cumprod[to]).sqrt() * eps
        clean = scheduler.step(ask(z, to), to, z).pred_original_sample
        t = to
    return clean


@torch.no_grad()
def to_images(pipeline: StableDiffusionPipeline, latents: Tensor) -> Tensor:
    """Latents in the model's scaled space → RGB [N, 3, H, W] in [0, 1], float32 on the CPU."""
    decoded = pipeline.vae.decode(latents / pipeline.vae.config["scaling_factor"]).sample
    return (decoded / 2 + 0.5).clamp(0, 1).float().cpu()


def _noise(pipeline: StableDiffusionPipeline, seeds: Sequence[int], size: int) -> Tensor:
    stride = pipeline.vae_scale_factor
    shape = (1, pipeline.unet.config["in_channels"], size // stride, size // stride)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(rows).to(pipeline.device, pipeline.unet.dtype)
