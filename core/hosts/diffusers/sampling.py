"""Sampling with a look at every step: the predicted clean latents of a diffusers pipeline, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from ...errors import BadInput


@torch.no_grad()
def predicted_clean(
    pipeline: StableDiffusionPipeline, prompt: str, seeds: Sequence[int], *, size: int, steps: int, guidance: float
) -> Iterator[Tensor]:
    """Sample one batch, one row per seed, and tell after every step what the finished latents would be.

    Args:
        pipeline: A Stable Diffusion pipeline with a deterministic scheduler (DDIM).
        prompt: One prompt for all rows; the unconditioned half has the empty one.
        seeds: Each draws its own starting noise, so that a row does not depend on its batch-mates.
        size: Side of the pictures in pixels, a multiple of the stride.
        steps: Denoising steps.
        guidance: Classifier-free guidance; 1 computes no unconditioned half.

    Yields:
        Clean latents [N, C, size / stride, size / stride] as predicted at that step; ``steps`` times, then the finished
        ones once more.

    Raises:
        BadInput: no seeds, or no steps.
    """
    if not seeds or steps < 1:
        raise BadInput("at least one seed and one step", f"{len(seeds)} seeds, {steps} steps", "Raise them.")
    scheduler: Any = pipeline.scheduler
    unet, device = pipeline.unet, pipeline.device
    words, nothing = pipeline.encode_prompt(prompt, device, 1, guidance != 1, negative_prompt="")
    texts = [words] if nothing is None else [nothing, words]
    context = torch.cat([text.expand(len(seeds), -1, -1) for text in texts])
    scheduler.set_timesteps(steps, device=device)
    z = _noise(pipeline, seeds, size) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        rows = torch.cat([z] * len(texts))
        eps = unet(scheduler.scale_model_input(rows, t), t, encoder_hidden_states=context).sample
        if len(texts) == 2:
            without, told = eps.chunk(2)
            eps = without + guidance * (told - without)
        stepped = scheduler.step(eps, t, z)
        z = stepped.prev_sample
        yield stepped.pred_original_sample
    yield z


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
