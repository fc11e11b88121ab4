"""How often a sampler asks the model: counted on a clone, which shares the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.patcher_extension import CallbacksMP, WrappersMP

_KEY = "latent_critic_calls"


class Calls:
    """Model evaluations of the latest sampling on one MODEL: once a step for euler, twice for heun.

    The conditioned and the unconditioned half of one evaluation count as one call.
    """

    def __init__(self) -> None:
        self.count = 0

    def __repr__(self) -> str:
        return f"{self.count} calls"

    def _restart(self, *_: Any) -> None:
        self.count = 0

    def _evaluate(self, executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return executor(*args, **kwargs)


def count_calls(model: Any) -> tuple[Any, Calls]:
    """A clone of a MODEL, and the counter that follows whatever is sampled with it."""
    clone, calls = model.clone(), Calls()
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, _KEY, calls._restart)
    clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, _KEY, calls._evaluate)
    return clone, calls
