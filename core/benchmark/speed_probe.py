"""What a probe costs a sampling, on ComfyUI's own sampler: with it and without it, in turns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .speed_row import SpeedRow
from .timing import TOLD, Job, interleaved, own_clock

#: A forward of both branches must take this long, or the row says nothing about real models.
LEAST_SECONDS = 0.2
_STEPS = 4
_ROWS = 2
_TIMESTEPS = (700, 300, 1)  # four steps of the scheduler pass all of them
#: Smaller pictures make more pairs in the same time, and those make the interval narrow.
_SIDE, _PAIRS_A_REPEAT = 192, 6


def probe_row(model: Any, conditioning: Tensor, *, repeats: int, side: int) -> SpeedRow:
    """Sampling on a probed model over sampling on the same model: the median over interleaved pairs.

    Args:
        model: ComfyUI's MODEL.
        conditioning: [2, tokens, width] positive and negative text.
        repeats: A sixth of the pairs.
        side: Of the images at most, in pixels.
    """
    from ..hosts.comfyui.probe import probe_model
    from ..hosts.comfyui.sampling import sample_euler

    side = min(side, _SIDE)
    probed, probe = probe_model(model, _TIMESTEPS)
    noise = torch.randn(_ROWS, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    seen = probe.find(sample_euler(probed, noise, conditioning, _STEPS))
    read = sum(not isinstance(one, str) and isinstance(one.features(probe.plan), Tensor) for one in seen)
    jobs: dict[str, Job] = {
        "probed": lambda: sample_euler(probed, noise, conditioning, _STEPS),
        "plain": lambda: sample_euler(model, noise, conditioning, _STEPS),
    }
    with own_clock(model.load_device) as clock:
        timings = interleaved(jobs, _PAIRS_A_REPEAT * repeats, clock)
    low, high = timings.interval("probed", "plain")
    forward = timings.seconds("plain") / _STEPS
    short = "" if forward >= LEAST_SECONDS else f" (under {LEAST_SECONDS:g} s: says little of real models)"
    detail = (
        f"95 % interval {low:.3f} to {high:.3f}; {_PAIRS_A_REPEAT * repeats} interleaved pairs of {_STEPS} steps, "
        f"{TOLD}; {_ROWS} images of {side}×{side} px, a forward takes {forward:.2f} s{short}; "
        f"{len(probe.plan.sigmas)} noise levels of {len(probe.plan.taps)} taps read of {read} of {_ROWS} images"
    )
    return SpeedRow("probe: over sampling without it", timings.ratio("probed", "plain"), 1.02, "time", detail)
