"""Denoiser calls of a sampler: counted on a clone, which shares the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP

_KEY = "latent_critic_calls"


class Calls:
    """Denoiser calls on one MODEL, by sampling. One image through the denoiser once is one call.

    For each image of a batch one a step for euler, two for heun; the conditioned and the unconditioned half of an
    evaluation count as one.
    """

    def __init__(self) -> None:
        self._counts: list[int] = []

    def __repr__(self) -> str:
        return f"{sum(self._counts)} calls"

    def latest(self, samplings: int) -> int:
        """Calls of the latest samplings, so many of them: ComfyUI may hold the counter longer than a run."""
        return sum(self._counts[-samplings:]) if samplings > 0 else 0

    def _begin(self, *_: Any) -> None:
        self._counts.append(0)

    def _evaluate(self, executor: Callable[..., Any], x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self._counts[-1] += len(x)
        return executor(x, *args, **kwargs)


def count_calls(model: Any) -> tuple[Any, Calls]:
    """A clone of a MODEL, and the counter that follows whatever is sampled with it."""
    clone, calls = model.clone(), Calls()
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, _KEY, calls._begin)
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, _KEY, calls._evaluate)
    return clone, calls


def calls_of(counters: Sequence[Calls], samplings: int) -> int:
    """Calls of so many samplings with a list of models: one each, and the last model serves all that are left."""
    last = len(counters) - 1
    return sum(counter.latest(1) for counter in counters[:last]) + counters[last].latest(samplings - last)
