"""A step down the gradient, as trainings share it: rate, mean over processes, loss scaling, clipping."""

from __future__ import annotations

import logging
import math
from typing import Protocol

import torch

from .genziqa_world import World
from .ldm.state import State

_log = logging.getLogger(__name__)
_RISE = 50


class Descent(Protocol):
    """What a training's request says of its steps."""

    @property
    def rate(self) -> float:
        """The highest."""
        ...

    @property
    def steps(self) -> int:
        """In all."""
        ...

    @property
    def clip(self) -> float:
        """Largest norm of the gradient."""
        ...


def descend(
    state: State, world: World, scaler: torch.amp.GradScaler, request: Descent, rate: float | None = None
) -> None:
    """Step along the gradients that are there, and forget them; one that is not finite is skipped.

    Args:
        state: Whose step it is.
        world: The processes, whose gradients are averaged.
        scaler: Of the loss, as it was scaled.
        request: Rate, steps, clip.
        rate: Of this step, in place of :func:`rate_at`.
    """
    parameters = [parameter for _, parameter in state.names()]
    for group in state.optimiser.param_groups:
        group["lr"] = rate_at(request, state.step) if rate is None else rate
    world.mean_gradients(parameters)
    scaler.unscale_(state.optimiser)
    norm = torch.nn.utils.clip_grad_norm_(parameters, request.clip)
    if bool(torch.isfinite(norm)):
        scaler.step(state.optimiser)
    else:
        _log.warning("The gradient of step %d was not finite; the step is skipped.", state.step)
    scaler.update()
    state.optimiser.zero_grad(set_to_none=True)


def rate_at(request: Descent, step: int, rise: int = _RISE, falls: bool = True) -> float:
    """Rising over the first ``rise`` steps, then half a cosine down to a twentieth; constant where it does not fall."""
    rate = request.rate * min(1.0, (step + 1) / max(1, rise))
    if not falls:
        return rate
    return rate * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / request.steps))))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Forwards in this precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
