"""The walk from step to step that trainings share: budget, validation, progress, saving."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from .genziqa_world import World
from .ldm.state import State

#: Called with (what, steps done, steps in all, figures); may raise to stop. A stopped run goes on where it was saved.
Watch = Callable[[str, int, int, dict[str, float]], None]


class Budget(Protocol):
    """What a training's request says of its length."""

    @property
    def steps(self) -> int:
        """In all."""
        ...

    @property
    def minutes(self) -> float | None:
        """Of this call; ``None`` for no limit."""
        ...

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        ...

    @property
    def save_minutes(self) -> float:
        """Between saved states."""
        ...


class Run(Protocol):
    """A training that is begun."""

    state: State
    watch: Watch | None
    world: World

    def one_step(self) -> float:
        """One step; its loss."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures of held-back pictures, ``srcc`` among them."""
        ...

    def save(self) -> None:
        """Write the state."""
        ...


def take_steps(run: Run, budget: Budget) -> float:
    """Step until the budget's steps or minutes are used up; returns the seconds per step."""
    began, first = time.monotonic(), run.state.step
    saved = began
    limit = math.inf if budget.minutes is None else 60.0 * budget.minutes
    while run.state.step < budget.steps and _has_time(run.world, began, limit):
        figures = {"loss": run.one_step()}
        if run.state.step % budget.validate_every == 0 and run.state.step < budget.steps:
            figures |= run.validate()
        if run.watch is not None:
            run.watch("training", run.state.step, budget.steps, figures)
        if time.monotonic() - saved > 60.0 * budget.save_minutes or "srcc" in figures:
            run.save()
            saved = time.monotonic()
    seconds = (time.monotonic() - began) / max(1, run.state.step - first)
    run.save()
    return seconds


def _has_time(world: World, began: float, limit: float) -> bool:
    # The first process's clock counts for all: processes that stopped at different steps would wait for each other.
    return limit == math.inf or world.first(time.monotonic() - began < limit)
