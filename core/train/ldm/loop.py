"""The loop that both halves share: rate, step, average, log, save; it ends by the clock, by the count, or by a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ...files import write_text
from . import state as states
from .settings import Request
from .state import State

_LOG_EVERY = 20
_AVERAGE = 0.999
_RISE = 100


class Task(Protocol):
    """One half of the training."""

    state: State

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of this step, and what to log of it. Everything random is drawn from (seed, step)."""
        ...


def learning_rate(request: Request, step: int, first: int) -> float:
    """Rising since the optimiser began, then half a cosine down to a twentieth at the horizon."""
    rise = min(1.0, (step - first + 1) / _RISE)
    share = min(1.0, step / request.horizon)
    return request.rate * rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def run(task: Task, request: Request, file: Path, log: Path) -> dict[str, float]:
    """Train until the minutes or the steps are used up; saved at the end and every few minutes.

    Returns:
        ``step``, ``made`` (steps of this piece), ``steps_per_second`` and the last logged loss.
    """
    state, began, saved = task.state, time.monotonic(), time.monotonic()
    first, recent = state.step, dict[str, float]()
    with tqdm(desc=request.stage, initial=state.step, unit="step", disable=None) as bar:
        while not _finished(request, state.step, time.monotonic() - began):
            recent = _one_step(task, request)
            bar.update()
            if state.step % _LOG_EVERY == 0:
                bar.set_postfix(loss=f"{recent['loss']:.4f}")
                append(log, [{"stage": request.stage, "step": state.step, "size": request.size, **recent}])
            if time.monotonic() - saved > 60 * request.save_minutes:
                states.save(state, file)
                saved = time.monotonic()
    states.save(state, file)
    made, seconds = state.step - first, time.monotonic() - began
    return {"step": state.step, "made": made, "steps_per_second": made / max(seconds, 1e-9), **recent}


def _finished(request: Request, step: int, seconds: float) -> bool:
    return seconds > 60 * request.minutes or (request.steps is not None and step >= request.steps)


def _one_step(task: Task, request: Request) -> dict[str, float]:
    state = task.state
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(request, state.step, state.first)
    loss, parts = task.loss(state.step)
    loss.backward()
    parameters = [parameter for _, parameter in state.names()]
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    # A step whose gradient overflowed is skipped: it counts, so that the next one draws other crops.
    if bool(torch.isfinite(norm)):
        state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.step += 1
    state.update_average(_AVERAGE)
    return {"loss": round(float(loss.detach()), 6), **{name: round(value, 6) for name, value in parts.items()}}


def append(log: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add lines to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", newline="\n") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


def forget_after(log: Path, stage: str, step: int) -> None:
    """Drop what a killed run logged after its last save (and a torn last line)."""
    if not log.exists():
        return
    rows = [row for line in log.read_text(encoding="utf-8").splitlines() if (row := _row(line)) is not None]
    kept = [row for row in rows if row.get("stage") != stage or row.get("step", 0) <= step]
    write_text(log, "".join(json.dumps(row) + "\n" for row in kept))


def record(log: Path) -> dict[str, Any]:
    """How far each stage has come, on crops of which sides, and the last PSNR, as the log's rows tell."""
    told: dict[str, Any] = {}
    sides: dict[str, set[int]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        row = _row(line) or {}
        if row.get("piece"):
            told[row["stage"]] = {"steps": row["step"]}
            psnr = {name: value for name, value in row.items() if name.startswith("psnr_")}
            told |= {"psnr": psnr} if psnr else {}
        elif "size" in row:
            sides.setdefault(row["stage"], set()).add(row["size"])
    for stage in sides.keys() & told.keys():
        told[stage]["sides"] = sorted(sides[stage])
    return told


def _row(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
