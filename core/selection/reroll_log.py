"""The log of a reroll, as text for people and as plain types for JSON. No torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .policy import against_threshold, meets, numeral
from .report import aligned, cell, meaning
from .reroll import Rerolls

COLUMNS = ("attempt", "seed", "image", "score", "passed", "best", "calls", "seconds", "reason")


def rows(state: Rerolls) -> list[dict[str, Any]]:
    """One row per image in the order of the attempts, with :data:`COLUMNS`.

    ``attempt`` counts from 1, ``image`` counts within the attempt from 0. ``calls`` and ``seconds`` are the whole
    attempt's. ``passed`` is None without a threshold, ``score`` is None where ``reason`` says why.
    """
    best, limit, found = state.best, state.policy.threshold, []
    for number, attempt in enumerate(state.attempts, 1):
        for image, score in enumerate(attempt.scores):
            passed = None
            if limit is not None:
                passed = score.value is not None and meets(attempt.scores.spec, score.value, limit)
            found.append(
                {
                    "attempt": number,
                    "seed": attempt.seed,
                    "image": image,
                    "score": score.value,
                    "passed": passed,
                    "best": best is not None and best.index == len(found),
                    "calls": attempt.calls,
                    "seconds": attempt.seconds,
                    "reason": score.reason or "",
                }
            )
    return found


def to_dict(state: Rerolls) -> dict[str, Any]:
    """Plain types for JSON: policy, seeds, why it stopped, the winner, what the numbers mean, and the rows."""
    best, scores = state.best, state.scores
    return {
        "policy": asdict(state.policy),
        "seeds": {**asdict(state.seeds), "listed": list(state.seeds.listed)},
        "stopped": state.stopped,
        "passed": state.passed,
        "best": None if best is None else best.to_dict(),
        "calls": state.calls,
        "seconds": state.seconds,
        "spec": None if scores is None else scores.spec.to_dict(),
        "attempts": rows(state),
    }


def to_text(state: Rerolls, hint: str = "") -> str:
    """Summary, what the numbers mean, and the table."""
    count = len(state.attempts)
    head = f"{count} attempt{'' if count == 1 else 's'}; stopped because {state.stopped}."
    scores = state.scores
    if scores is None:
        return head
    lines = [head, winner(state), *([hint] if hint else []), meaning(scores)]
    return "\n".join([*lines, "", _table(state)])


def winner(state: Rerolls) -> str:
    """The best image in one line, or why there is none."""
    best, scores, limit = state.best, state.scores, state.policy.threshold
    if best is None or best.value is None or scores is None:
        first = "" if not scores else f" The first one: {scores[0].reason}"
        return f"No image has a score.{first}"
    if limit is None:
        return f"Best: seed {best.seed}, {numeral(best.value)}."
    verdict = "passed" if state.passed else "not passed, the best all the same"
    return f"Best: seed {best.seed}, {against_threshold(scores.spec, best.value, limit)}: {verdict}."


def _table(state: Rerolls) -> str:
    found = rows(state)
    many = any(row["image"] for row in found)
    drop = {"image"} if not many else set()
    columns = [name for name in COLUMNS if name not in drop and any(row[name] not in (None, "") for row in found)]
    return aligned([columns, *([_cell(name, row[name]) for name in columns] for row in found)])


def _cell(name: str, value: Any) -> str:
    return f"{value:.2f}" if name == "seconds" else cell(value)
