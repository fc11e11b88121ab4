"""Rows of a batch that are dropped while it is sampled: only the live ones are computed from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy import model_management
from comfy.conds import CONDConstant
from comfy.patcher_extension import WrappersMP

from .memory import in_chunks

_KEY = "latent_critic_rows"


@dataclass(eq=False, slots=True)
class LiveRows:
    """Which rows of a sampled batch are computed, and how many were.

    It wraps the place where a sampler's question meets the conditions, before conditioned and unconditioned halves are
    put together: so the denoiser, ControlNets and whatever nodes hung on the model see the live rows only, as in a
    smaller batch. A dead row is told that it is clean already, which keeps it where it is.

    Attributes:
        rows: Rows of the batch.
        at_once: At most so many go through the denoiser together.
        live: Rows that are computed, in order.
        asked: Rows that the sampler has asked for so far; conditioned and unconditioned count once.
        computed: Those that were computed.
        sigma: Noise level of the latest question; ``None`` before the first.
    """

    rows: int
    at_once: int
    live: list[int] = field(default_factory=list)
    asked: int = 0
    computed: int = 0
    sigma: float | None = None

    def __post_init__(self) -> None:
        self.live = list(range(self.rows))

    def hang_on(self, model: Any) -> Any:
        """A clone of a MODEL, which shares the weights, with these rows."""
        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, _KEY, self._calc)
        clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, _KEY, self._prepare)
        return clone

    def _prepare(self, executor: Callable[..., Any], model: Any, shape: Sequence[int], *args: Any, **named: Any) -> Any:
        """Ask for as much memory as the rows take that go through the denoiser together."""
        return executor(model, [min(shape[0], self.at_once), *shape[1:]], *args, **named)

    def _calc(
        self, executor: Callable[..., Any], model: Any, conds: Any, x: torch.Tensor, timestep: torch.Tensor, *rest: Any
    ) -> list[torch.Tensor]:
        model_management.throw_exception_if_processing_interrupted()
        self.sigma = float(timestep.max())
        self.asked += self.rows
        self.computed += len(self.live)

        def compute(first: int, last: int) -> list[torch.Tensor]:
            model_management.throw_exception_if_processing_interrupted()
            where = self.live[first:last]
            whole = len(where) == self.rows
            those = (conds, x, timestep) if whole else (rows_of(conds, where, self.rows), x[where], timestep[where])
            return executor(model, *those, *rest)

        # What ran out of memory once is not tried again.
        parts, self.at_once = in_chunks(len(self.live), self.at_once, compute)
        if len(parts) == 1 and len(self.live) == self.rows:
            return parts[0]
        found = [x.clone() for _ in conds]
        for place, whole in enumerate(found):
            if parts:
                whole[self.live] = torch.cat([part[place] for part in parts]).to(whole.dtype)
        return found


def rows_of(conds: Any, where: Sequence[int], rows: int) -> list[Any]:
    """Conditions of a batch → of these rows of it. What is the same for all rows stays as it is."""
    return [cond if cond is None else [_condition(one, list(where), rows) for one in cond] for cond in conds]


def _condition(condition: dict[str, Any], where: list[int], rows: int) -> dict[str, Any]:
    cut = {name: _cut(value, where, rows) for name, value in condition["model_conds"].items()}
    found = {**condition, "model_conds": cut}
    mask = condition.get("mask")
    if isinstance(mask, torch.Tensor) and len(mask) == rows > 1:
        found["mask"] = mask[where]
    return found


def _cut(value: Any, where: list[int], rows: int) -> Any:
    """One of ComfyUI's COND objects; those made from the whole batch hold one row per image."""
    inner = getattr(value, "cond", None)
    if isinstance(value, CONDConstant) or rows == 1:
        return value
    if isinstance(inner, torch.Tensor) and inner.ndim and len(inner) == rows:
        return value._copy_with(inner[where])
    if isinstance(inner, list) and all(isinstance(one, torch.Tensor) and len(one) == rows for one in inner):
        return value._copy_with([one[where] for one in inner])
    return value
