"""Ladders of generation from a checkpoint of one's own: the same prompt and seed, sane against extreme settings.

Only extremes stand against what is sane: between two sane settings nobody knows which is better. Far too few steps,
absurd guidance, and a run that was stopped early and decoded as it stood.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.ladder import CLEAN, LEVELS, file_name
from ..data.ladder_groups import write_groups
from ..errors import BadInput
from ..files import sweep
from .judge_ladders import generated_name, write_picture

_FAMILY = "generation"


@dataclass(frozen=True, slots=True)
class ExtremesRequest:
    """What to make.

    Attributes:
        prompts: One content each with every seed.
        out: The folder of ladders.
        model: Its name, for the contents' names.
        seeds: Of the starting noise.
        steps: A sane number.
        guidance: A sane guidance.
        few: Far too few steps.
        absurd: A guidance beyond reason.
        stop: Share of the sane steps after which a run is stopped.
        side: Of the pictures, px; the model's own when ``None``.
    """

    prompts: tuple[str, ...]
    out: Path
    model: str
    seeds: tuple[int, ...] = (0,)
    steps: int = 30
    guidance: float = 5.0
    few: int = 3
    absurd: float = 40.0
    stop: float = 0.5
    side: int | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not self.seeds:
            raise BadInput("prompts and seeds", f"{len(self.prompts)} prompts, {len(self.seeds)} seeds", "Name some.")
        if not (1 <= self.few < self.steps / 3 and self.absurd >= 3 * self.guidance > 0 and 0 < self.stop <= 0.7):
            got = (
                f"{self.few} of {self.steps} steps, guidance {self.absurd:g} for {self.guidance:g}, stop {self.stop:g}"
            )
            remedy = "Fewer than a third of the steps, three times the guidance or more, stopped before 0.7."
            raise BadInput("extremes that are beyond doubt", got, remedy)


def make_extremes(
    request: ExtremesRequest, pipeline: Any, watch: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write what is missing: each content clean (sane) and in three extreme forms at the last level.

    Args:
        request: What to make.
        pipeline: A text-to-image pipeline of diffusers that takes ``callback_on_step_end``; ``None`` where nothing is
            missing.
        watch: Called with (contents done, contents in all); may raise to stop.

    Returns:
        Every file of the request.

    Raises:
        BadInput: a pipeline that cannot be stopped early.
    """
    sweep(request.out)
    if pipeline is not None and "callback_on_step_end" not in inspect.signature(type(pipeline).__call__).parameters:
        remedy = "Use one of SD 1.x, SD 2.x, SDXL, SD3 or Flux."
        raise BadInput("a pipeline that tells of its steps", type(pipeline).__name__, remedy)
    contents = [(prompt, seed) for prompt in request.prompts for seed in request.seeds]
    names = {generated_name(prompt, seed, request.model): (prompt,) for prompt, seed in contents}
    write_groups(request.out, names)
    found = []
    for done, (prompt, seed) in enumerate(contents):
        name = generated_name(prompt, seed, request.model)
        for kind, settings in _forms(request).items():
            family, level = (CLEAN, 0) if kind == CLEAN else (_FAMILY, LEVELS[-1])
            path = request.out / file_name(name, family, kind, level)
            if not path.exists():
                write_picture(_sampled(pipeline, prompt, seed, request.side, **settings), path)
            found.append(path)
        if watch is not None:
            watch(done + 1, len(contents))
    return found


def _forms(request: ExtremesRequest) -> dict[str, dict[str, Any]]:
    sane = {"steps": request.steps, "guidance": request.guidance}
    return {
        CLEAN: sane,
        "few_steps": sane | {"steps": request.few},
        "absurd_guidance": sane | {"guidance": request.absurd},
        "stopped_early": sane | {"stop": max(1, round(request.stop * request.steps))},
    }


@torch.no_grad()
def _sampled(
    pipeline: Any, prompt: str, seed: int, side: int | None, steps: int, guidance: float, stop: int | None = None
) -> Tensor:
    """One picture [3, H, W] in [0, 1]; with ``stop`` it is decoded as it stands after so many steps."""

    def after(pipe: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        if stop is not None and step + 1 >= stop:
            pipe._interrupt = True  # what diffusers' own documentation does to end a run and decode it
        return values

    size = {} if side is None else {"height": side, "width": side}
    found = pipeline(
        prompt,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        callback_on_step_end=after,
        **size,
    )
    return found.images[0].float().cpu().clamp(0.0, 1.0)


def prompts_of(path: Path | None, words: Sequence[str]) -> tuple[str, ...]:
    """Prompts of a text file, one a line, and of the command line."""
    lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()
    return tuple(dict.fromkeys(line.strip() for line in (*lines, *words) if line.strip()))
