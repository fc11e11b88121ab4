"""A plain sampling through ComfyUI's own sampler, as KSampler does it, for measurements."""

from __future__ import annotations

from typing import Any

import comfy.sample
import torch
from torch import Tensor


def sample_euler(model: Any, noise: Tensor, texts: Tensor, steps: int, cfg: float = 5.0) -> Tensor:
    """Noise [N, C, h, w] → finished latents, by euler steps.

    Args:
        model: MODEL.
        noise: Standard normal.
        texts: [2, tokens, width] positive and negative condition.
        steps: On the scheduler "normal".
        cfg: Guidance.
    """
    positive, negative = ([[texts[row : row + 1], {}]] for row in (0, 1))
    with torch.inference_mode():
        return comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            "euler",
            "normal",
            positive,
            negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=0,
        )
