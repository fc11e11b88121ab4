"""Many seeds in one sampler call, with a look at the predicted clean latents on the way.

What a finished row holds is what KSampler makes of that seed alone: to the bit where as many rows go through the
denoiser at once as there, else to within 1e-3 of the latent's standard deviation in fp32 (other batch size, other
kernels).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch

from ...errors import BadInput
from .ahead import ShortRun, why_none
from .row_noise import noise_of_each_seed, starting_noise
from .rows import LiveRows
from .sampling_task import Task, masks, rows_at_once


@dataclass(frozen=True, slots=True)
class Moment:
    """A look at a running sampler.

    Attributes:
        step: Steps of the schedule that have begun, 1 and up.
        sigma: Noise level of the latest question.
        share: Product of the shares of the marks that fall on this moment.
        ahead: Denoiser calls at most of the short run that it is the end of; 0: what the model predicts at this step.
        clean: Rows → their predicted clean latents, or those at the end of a short run, in the VAE's space.
    """

    step: int
    sigma: float
    share: float
    ahead: int
    clean: Callable[[Sequence[int]], torch.Tensor]


#: Looks at these live rows (0 to seeds × rows of the latent) and tells which go on.
OnLook = Callable[[Moment, list[int]], Sequence[int]]
#: After each step: the sampler's own arguments for ComfyUI's preview (step, x0, x, steps), and the live rows of x0.
OnStep = Callable[[tuple[int, torch.Tensor, torch.Tensor, int], list[int]], None]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What came out.

    Attributes:
        latents: One LATENT of all rows; only those in ``live`` mean anything.
        noise: What each row's sampling began with.
        live: The rows that were finished.
        asked, computed: Denoiser calls, one per row: of finishing everybody, and those that were made, short runs too.
        called_back: Whether the sampler showed its intermediate states.
        alone: Why every seed was sampled by itself; empty when they were sampled together.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    live: tuple[int, ...]
    asked: int
    computed: int
    called_back: bool
    alone: str


#: (after this many steps, share, extra steps of a short run); what is left out is 1 and 0.
Marks = Sequence[tuple[int, float] | tuple[int, float, int]]


def sample(task: Task, marks: Marks, on_look: OnLook, on_step: OnStep) -> Sampled:
    """Sample every seed; at the marks drop the rows that ``on_look`` leaves out.

    Args:
        task: What is sampled.
        marks: Rising; ``on_look`` gets the share. Extra steps: the look is at the end of a short run to the end, which
            takes so many denoiser calls, where ``ahead.why_none`` allows one. 0 looks at the predicted clean latents.
        on_look: Who goes on. What it raises ends the sampling. Where seeds are sampled alone it sees one at a time,
            and must drop all rows of a seed or none: the others would not be what they are beside them.
        on_step: Shows progress.

    Raises:
        BadInput: no seeds, the same seed twice, or a latent without rows.
    """
    if not task.seeds or len(set(task.seeds)) != len(task.seeds):
        raise BadInput("one seed or more, all different", str(list(task.seeds)), "Name each seed once.")
    if task.per_seed < 1:
        raise BadInput("a latent of one row or more", "an empty batch", "Check what is connected to latent_image.")
    if not (alone := task.why_alone):
        return _Run(task, marks, on_look, on_step).sampled("")
    parts = []
    for place, seed in enumerate(task.seeds):
        shifted = _shifted(on_look, place * task.per_seed)
        lone = replace(task, seeds=(seed,), at_once=task.per_seed)
        parts.append(_Run(lone, marks, shifted, on_step).sampled(alone))
    return _joined(parts, task.per_seed)


class _Run:
    """One call of the sampler."""

    def __init__(self, task: Task, marks: Marks, on_look: OnLook, on_step: OnStep) -> None:
        self._task, self._on_look, self._on_step = task, on_look, on_step
        self._marks = [(step, share, ahead[0] if ahead else 0) for step, share, *ahead in marks]
        self._rows = LiveRows(len(task.seeds) * task.per_seed, task.at_once or rows_at_once(task))
        self._guider = _copy_of(task.guider, self._rows)
        self._short_run = ShortRun(task)
        if any(ahead for *_, ahead in self._marks) and not why_none(task):
            self._short_run.hang_on(self._guider.model_patcher)
        self._called_back = False

    def sampled(self, alone: str) -> Sampled:
        task, rows, seeds = self._task, self._rows, self._task.seeds
        first, *_ = seeds
        noise = starting_noise(task.latent, seeds)
        start = task.latent["samples"]
        with noise_of_each_seed(seeds, task.per_seed, lambda: rows.live):
            found = self._guider.sample(
                noise,
                start.repeat(len(seeds), *[1] * (start.ndim - 1)) if len(seeds) > 1 else start,
                task.sampler,
                task.sigmas,
                denoise_mask=masks(task),
                callback=self._callback,
                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                seed=first,
            )
        found = found.to(comfy.model_management.intermediate_device(), task.dtype or found.dtype)
        return Sampled(found, noise, tuple(rows.live), rows.asked, rows.computed, self._called_back, alone)

    def _callback(self, step: int, x0: torch.Tensor, x: torch.Tensor, steps: int) -> None:
        self._called_back, rows = True, self._rows
        self._on_step((step, x0, x, steps), list(rows.live))
        if rows.sigma is None or not rows.live:
            return
        begun = steps_begun(self._task.sigmas, rows.sigma)
        due = [(share, ahead) for step, share, ahead in self._marks if step <= begun]
        if not due or begun >= self._task.steps:  # after the last question there is nothing left to save
            return
        self._marks = self._marks[len(due) :]
        sigma = rows.sigma
        with torch.random.fork_rng([x0.device] if x0.device.type == "cuda" else []):
            ahead = max(each for _, each in due)
            x0 = self._ended(x0, begun, ahead)
            share = math.prod(each for each, _ in due)
            moment = Moment(begun, sigma, share, ahead, lambda where: self._clean(x0, where))
            rows.live = sorted(self._with_model_as_it_was(lambda: self._on_look(moment, list(rows.live))))

    def _ended(self, x0: torch.Tensor, begun: int, ahead: int) -> torch.Tensor:
        """The short run's end; its calls count as made, not as those of finishing everybody."""
        rows = self._rows
        asked, sigma = rows.asked, rows.sigma
        try:
            return self._short_run.clean(self._guider, x0, begun, ahead)
        finally:
            rows.asked, rows.sigma = asked, sigma

    def _clean(self, x0: torch.Tensor, where: Sequence[int]) -> torch.Tensor:
        picked = self._guider.model_patcher.model.process_latent_out(x0[list(where)].to(torch.float32))
        return picked.to(comfy.model_management.intermediate_device())

    def _with_model_as_it_was(self, look: Callable[[], Sequence[int]]) -> Sequence[int]:
        """A scorer may sample with the same weights, and a VAE may push them off the device: neither is felt here."""
        guider, patcher = self._guider, self._guider.model_patcher
        current = patcher.model.current_patcher
        try:
            going = look()
        finally:
            patcher.model.current_patcher = current
        shape = [max(1, len(going)), *self._task.latent["samples"].shape[1:]]
        comfy.sampler_helpers.prepare_sampling(patcher, shape, guider.conds, guider.model_options)
        patcher.model.current_patcher = current
        return going


def _copy_of(guider: Any, rows: LiveRows) -> Any:
    found = copy.copy(guider)
    found.model_patcher = rows.hang_on(guider.model_patcher)
    if guider.model_options is guider.model_patcher.model_options:
        found.model_options = found.model_patcher.model_options
    return found


def steps_begun(sigmas: torch.Tensor, sigma: float) -> int:
    """How many steps of a schedule have begun when the denoiser is asked at this noise level; at least 1."""
    levels = sigmas[:-1].double().cpu()
    if len(levels) > 1 and levels[-1] > levels[0]:  # towards noise
        return max(1, int((levels <= sigma * (1 + 1e-4)).sum()))
    # Samplers may begin a hair below the first level (flow models at 1).
    return max(1, int((levels >= sigma * (1 - 1e-4)).sum()))


def _shifted(on_look: OnLook, by: int) -> OnLook:
    """The same, for a part of the rows that begins at ``by``."""

    def inner(moment: Moment, live: list[int]) -> Sequence[int]:
        there = replace(moment, clean=lambda where: moment.clean([row - by for row in where]))
        return [row - by for row in on_look(there, [row + by for row in live])]

    return inner


def _joined(parts: Sequence[Sampled], per_seed: int) -> Sampled:
    live = tuple(row + place * per_seed for place, part in enumerate(parts) for row in part.live)
    return Sampled(
        torch.cat([part.latents for part in parts]),
        torch.cat([part.noise for part in parts]),
        live,
        sum(part.asked for part in parts),
        sum(part.computed for part in parts),
        all(part.called_back for part in parts),
        parts[0].alone,
    )
