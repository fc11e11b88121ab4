"""Which schedule of looks finds the best seeds at the least cost: simulated on recorded scores.

The schedule is chosen on one half of the groups and reported on the other. A prompt lies on one side only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr

from ..errors import BadInput
from ..hosts.short_run import leaps
from ..selection.halving import Halving
from .halving_record import Group

#: Budgets of the curve, as shares of the denoiser calls that finishing everybody takes.
BUDGETS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0)
TOP = 3
_KEPT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_MOST_LOOKS = 3
_NO_SCORE = -1e30


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to look, and how many go on.

    Attributes:
        looks: After which steps.
        kept: How many candidates go on after each.
        steps: Sampling steps.
        ahead: Denoiser calls at most of the short run that each look takes; none when empty.
    """

    looks: tuple[int, ...]
    kept: tuple[int, ...]
    steps: int
    ahead: tuple[int, ...] = ()

    @property
    def extra(self) -> tuple[float, ...]:
        """What the short run of each look costs a candidate, as a share of its whole way."""
        tries = zip(self.looks, self.ahead, strict=False)
        return tuple(len(leaps(look, self.steps, ahead)) / self.steps for look, ahead in tries)

    def cost(self, candidates: int) -> float:
        """Share of the denoiser calls of finishing everybody, short runs counted."""
        live = (candidates, *self.kept)
        marks = (0, *self.looks, self.steps)
        spent = sum(count * (high - low) for count, (low, high) in zip(live, pairwise(marks), strict=True))
        tried = sum(count * share for count, share in zip(live, self.extra, strict=False))
        return (spent / self.steps + tried) / candidates

    def policy(self, candidates: int) -> Halving:
        """The same as the node's shares."""
        live = (candidates, *self.kept)
        return Halving(tuple(after / before for before, after in pairwise(live)))


@dataclass(frozen=True, slots=True)
class Table:
    """Recorded scores turned so that higher is better.

    Attributes:
        previews: [groups, looks, candidates].
        finals: [groups, candidates].
        looks: Steps of the looks.
        steps: Sampling steps.
        prompts: One per group.
        ahead: Denoiser calls at most of the short run that each look took; none when empty.
    """

    previews: NDArray[np.float64]
    finals: NDArray[np.float64]
    looks: tuple[int, ...]
    steps: int
    prompts: tuple[str, ...]
    ahead: tuple[int, ...] = ()

    @classmethod
    def of(cls, heading: dict[str, Any], groups: dict[int, Group]) -> Table:
        """From a recording.

        Raises:
            BadInput: fewer than 4 groups, or fewer than two prompts.
        """
        if len(groups) < 4 or len({group.prompt for group in groups.values()}) < 2:
            raise BadInput("at least 4 recorded groups of 2 prompts", f"{len(groups)} groups", "Record more.")
        sign = 1.0 if heading["spec"]["direction"] == "higher" else -1.0
        rows = [groups[number] for number in sorted(groups)]
        request = heading["request"]
        return cls(
            previews=np.array([[_numbers(look, sign) for look in row.previews] for row in rows]),
            finals=np.array([_numbers(row.finals, sign) for row in rows]),
            looks=tuple(request["looks"]),
            steps=request["steps"],
            prompts=tuple(row.prompt for row in rows),
            ahead=tuple(request["ahead"]) * (len(request["looks"]) if len(request["ahead"]) == 1 else 1),
        )

    def half(self, first: bool, seed: int) -> Table:
        """One of two halves with no prompt in common, as even as the prompts allow."""
        names = sorted(set(self.prompts))
        np.random.default_rng(seed).shuffle(names)
        count = {name: self.prompts.count(name) for name in names}
        chosen: set[str] = set()
        for name in names:
            if sum(count[one] for one in chosen) < len(self.prompts) // 2:
                chosen.add(name)
        rows = [place for place, name in enumerate(self.prompts) if (name in chosen) == first]
        prompts = tuple(self.prompts[row] for row in rows)
        return replace(self, previews=self.previews[rows], finals=self.finals[rows], prompts=prompts)


def schedules(table: Table) -> Iterator[Schedule]:
    """Every schedule of up to three of the recorded looks, with falling numbers of survivors."""
    candidates = table.finals.shape[1]
    kept = [count for count in _KEPT if count < candidates]
    tries = dict(zip(table.looks, table.ahead, strict=False))
    for number in range(1, _MOST_LOOKS + 1):
        for looks in combinations(table.looks, number):
            ahead = tuple(tries[look] for look in looks if look in tries)
            for counts in combinations(reversed(kept), number):
                yield Schedule(looks, counts, table.steps, ahead)


def winners(table: Table, schedule: Schedule) -> NDArray[np.intp]:
    """The candidate that each group hands back, by the rules of ``Halving.survivors``: the first of equals goes on."""
    live = np.ones_like(table.finals, dtype=bool)
    for step, count in zip(schedule.looks, schedule.kept, strict=True):
        seen = np.where(live, table.previews[:, table.looks.index(step)], -np.inf)
        best = np.argsort(-seen, axis=1, kind="stable")[:, :count]
        live = np.zeros_like(live)
        np.put_along_axis(live, best, True, axis=1)
    return np.argmax(np.where(live, table.finals, -np.inf), axis=1)


def measured(table: Table, schedule: Schedule) -> dict[str, Any]:
    """One row of the result: cost, how often the winner is among the true top 3 (with 95 % interval) and the best."""
    groups, candidates = table.finals.shape
    won = np.take_along_axis(table.finals, winners(table, schedule)[:, None], axis=1)
    better = (table.finals > won).sum(axis=1)
    usual = table.finals.std(axis=1)
    lost = (table.finals.max(axis=1) - won[:, 0]) / np.where(usual > 0, usual, 1.0)
    hits = int((better < TOP).sum())
    low, high = _interval(hits, groups)
    return {
        "looks": [step / table.steps for step in schedule.looks],
        "ahead": list(schedule.ahead),
        "kept": list(schedule.kept),
        "cost": schedule.cost(candidates),
        "groups": groups,
        "top3": hits / groups,
        "top3_low": low,
        "top3_high": high,
        "best": float((better == 0).mean()),
        "lost_in_spreads": float(lost.mean()),
    }


def study(table: Table, *, seed: int = 0, budgets: Sequence[float] = BUDGETS) -> dict[str, Any]:
    """The whole result as plain types.

    Returns:
        ``chosen``: per budget the schedule that did best on one half (``chosen_on``) and its row on the other half;
        ``single_look``: every schedule of one look on all groups; ``random``: finishing some at random for the same
        cost, as expected by counting; ``agreement``: mean rank correlation of previews with finished pictures within a
        group, per look.
    """
    choosing, reporting = table.half(True, seed), table.half(False, seed)
    candidates = table.finals.shape[1]
    tried = [(one, measured(choosing, one)) for one in schedules(table)]
    chosen = []
    for budget in budgets:
        fit = [(one, row) for one, row in tried if row["cost"] <= budget + 1e-9]
        if fit:
            one, row = max(fit, key=lambda pair: (pair[1]["top3"], pair[1]["best"], -pair[1]["cost"]))
            found = measured(reporting, one)
            chosen.append({"budget": budget, **found, "chosen_on": {key: row[key] for key in ("groups", "top3")}})
    return {
        "candidates": candidates,
        "steps": table.steps,
        "groups": len(table.prompts),
        "prompts": len(set(table.prompts)),
        "chosen": chosen,
        "single_look": [measured(table, one) for one in schedules(table) if len(one.looks) == 1],
        "random": [_random(candidates, count) for count in range(1, candidates + 1)],
        "agreement": [
            {"look": step / table.steps, "srcc": _within(table, place)} for place, step in enumerate(table.looks)
        ],
    }


def _random(candidates: int, count: int) -> dict[str, float]:
    top = min(TOP, candidates)
    missed = comb(candidates - top, count) / comb(candidates, count)
    return {"cost": count / candidates, "finished": count, "top3": 1 - missed, "best": count / candidates}


def _within(table: Table, place: int) -> float:
    rows = zip(table.previews[:, place], table.finals, strict=True)
    found = [float(spearmanr(a, b)[0]) for a, b in rows if len(set(a)) > 1 and len(set(b)) > 1]  # pyright: ignore
    return float(np.mean(found)) if found else 0.0


def _interval(hits: int, count: int) -> tuple[float, float]:
    found = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(found.low), float(found.high)


def _numbers(values: Sequence[float | None], sign: float) -> list[float]:
    return [_NO_SCORE if value is None else sign * value for value in values]
