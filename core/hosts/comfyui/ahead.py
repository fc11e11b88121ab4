"""Short runs to the end from where running candidates stand: sharper to look at than the predicted clean image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.sampler_helpers
import torch
from comfy.patcher_extension import WrappersMP

from ..short_run import leaps
from .coupling import conditions, why_alone
from .sampling_task import Task, masks

_KEY = "latent_critic_ahead"
#: Guidance that remembers what it was asked before: file and function of ComfyUI's own nodes.
_REMEMBERS = ("nodes_apg", "pre_cfg_function")
#: What CFG++ samplers add to the model's options: a function that writes what they see into the sampler.
_OF_SAMPLERS = ("sampler_post_cfg_function", "disable_cfg1_optimization")


#: Modules and packages of ControlNets that answer each question by itself; others may count the steps.
_CONTROLS = ("comfy.controlnet", "comfy.t2i_adapter")


def why_none(task: Task) -> str:
    """Why there is no short run, for the user; empty when there can be one.

    Asking out of turn must leave no trace in what the running candidates become.
    """
    sigmas = task.sigmas
    # Of one candidate too, which samples alone in any case: a step cache counts every call.
    if alone := why_alone(task.guider, task.sampler, task.latent):
        return alone
    if len(sigmas) > 1 and float(sigmas[-1]) > float(sigmas[0]):
        return "the schedule goes towards noise"
    if any(condition.get("hooks") is not None for condition in conditions(task.guider)):
        return "hooks on a condition follow the sampling step by step"
    for control in _controls(task.guider):
        home = type(control).__module__
        if not any(home == known or home.startswith(known + ".") for known in _CONTROLS):
            return f"its ControlNet ({type(control).__name__}) is not one of ComfyUI's own and may follow the steps"
    for function in task.guider.model_options.get("sampler_pre_cfg_function", ()):
        code = getattr(function, "__code__", None)
        if code is not None and _REMEMBERS[0] in code.co_filename and code.co_name == _REMEMBERS[1]:
            return "its guidance remembers earlier steps"
    return ""


def _controls(guider: Any) -> Iterator[Any]:
    """All ControlNets of all conditions, with those chained behind them."""
    for condition in conditions(guider):
        control = condition.get("control")
        while control is not None:
            yield control
            control = getattr(control, "previous_controlnet", None)


class ShortRun:
    """The sampler's latest question to a guider, and how it would end from there in a few leaps.

    Not hung on a model it knows no question, and leaves every prediction as it is.

    Euler steps on the rest of the schedule: x' = x0 + (σ' / σ) (x − x0), for ε, v and flow models alike. What is drawn
    or computed on the way does not reach the sampler.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._question: tuple[torch.Tensor, torch.Tensor] | None = None
        self._options: tuple[Any, Any] = ({}, None)

    def hang_on(self, model: Any) -> None:
        """Note what is asked of a MODEL's clone."""
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, _KEY, self._note)

    def _note(
        self, executor: Callable[..., torch.Tensor], x: torch.Tensor, sigma: torch.Tensor, options: Any, seed: Any
    ) -> torch.Tensor:
        self._question, self._options = (x, sigma), (options, seed)
        return executor(x, sigma, options, seed)

    def clean(self, guider: Any, x0: torch.Tensor, begun: int, ahead: int) -> torch.Tensor:
        """Predicted clean latents of the latest question → those at the end of the short run; of live rows only.

        Args:
            guider: Asked; the one that samples.
            x0: [N, C, …] in the sampler's space.
            begun: Steps of the schedule that have begun.
            ahead: Questions of the short run.
        """
        levels = self._levels(begun, ahead)
        if self._question is None or not levels:
            return x0
        (x, sigma), first = self._question, x0
        options, seed = _without_samplers_own(self._options[0], guider.model_options), self._options[1]
        for level in levels:
            to = torch.full_like(sigma, level)
            x = x0 + _wide(to / sigma, x) * (x - x0)
            # Behind what watches the sampling, such as a probe: this is none of it.
            found = guider.predict_noise(x, to, model_options=options, seed=seed)
            x0, sigma = self._masked(found, first), to
        # Half precision may overflow on the way: such a row is looked at as the sampler predicted it.
        whole = torch.isfinite(x0).flatten(1).all(1)
        return torch.where(_wide(whole, x0), x0, first)

    def _levels(self, begun: int, ahead: int) -> Sequence[float]:
        if self._question is None:
            return ()
        sigmas, here = self._task.sigmas, float(self._question[1].max())
        found = (float(sigmas[place]) for place in leaps(begun, self._task.steps, ahead))
        return [level for level in found if 0 < level < here]

    def _masked(self, x0: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Where a noise mask keeps the latent, the sampler's own prediction is the latent already."""
        mask = masks(self._task)
        if mask is None:
            return x0
        mask = comfy.sampler_helpers.prepare_mask(mask, x0.shape, x0.device)
        return x0 * mask + first * (1 - mask)


def _without_samplers_own(options: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The options as the guider had them before the sampler hung its own function on them."""
    kept = {name: value for name, value in options.items() if name not in _OF_SAMPLERS}
    return kept | {name: before[name] for name in _OF_SAMPLERS if name in before}


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
