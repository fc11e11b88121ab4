"""The log of a best-of-N run, as text for people and as plain types for JSON. No torch."""

from __future__ import annotations

from typing import Any

from .policy import numeral
from .race import Race, RaceLook
from .report import aligned, meaning


def rows(race: Race) -> list[dict[str, Any]]:
    """One row per candidate in their order.

    ``looks``: step → its score at every look that it reached (``None`` where there is none); ``dropped_after``: steps,
    ``None`` for a finished one; ``score``: of the finished image; ``reason``: why it was dropped or has no score.
    """
    found = []
    for number, candidate in enumerate(race.candidates):
        seen = [(look, look.scores[look.live.index(number)]) for look in race.looks if number in look.live]
        end = next((look for look, _ in seen if number in look.dropped), None)
        final = _final(race, number)
        found.append(
            {
                "seed": candidate.seed,
                "image": candidate.image,
                "looks": {str(look.step): score.value for look, score in seen},
                "dropped_after": None if end is None else end.step,
                "score": None if final is None else final.value,
                "best": race.best is not None and race.live[race.best] == number,
                "reason": end.dropped[number] if end else (final.reason or "") if final else "",
            }
        )
    return found


def to_dict(race: Race) -> dict[str, Any]:
    """Plain types for JSON: what was looked at, who won, what it cost, and the rows."""
    best = None if race.best is None or race.finished is None else race.finished[race.best].to_dict()
    abort = race.policy.abort
    spec = race.finished.spec if race.finished is not None else race.looks[-1].scores.spec if race.looks else None
    return {
        "steps": race.steps,
        "abort": {"mode": abort.mode, "quantile": abort.quantile},
        "looks": [_look(look) for look in race.looks],
        "best": best,
        "finished": 0 if race.finished is None else len(race.finished),
        "calls_of_all": race.asked,
        "calls_made": race.computed,
        "saved": race.saved,
        "notes": list(race.notes),
        "spec": None if spec is None else spec.to_dict(),
        "candidates": rows(race),
    }


def to_text(race: Race, hint: str = "") -> str:
    """Summary, what every look did, what the numbers mean, and the table."""
    lines = [headline(race), cost(race), *race.notes, *([hint] if hint else [])]
    lines += [_look_in_words(race, look) for look in race.looks]
    if race.finished is not None and len(race.finished):
        lines.append(meaning(race.finished))
    return "\n".join([*lines, "", _table(race)])


def headline(race: Race) -> str:
    """The winner in one line, or why there is none."""
    count, finished = len(race.candidates), len(race.finished or ())
    head = f"{finished} of {count} candidates finished."
    if race.winner is not None and race.finished is not None and race.best is not None:
        return f"{head} Best: seed {race.winner.seed}, {numeral(race.finished[race.best].value or 0.0)}."
    if finished and race.finished is not None:
        return f"{head} No finished image has a score. The first one: {race.finished[0].reason}"
    last = race.looks[-1] if race.looks else None
    why = next(iter(last.dropped.values()), "") if last else ""
    return f"{head} All were dropped{f': {why}' if why else ''}."


def cost(race: Race) -> str:
    """What was saved."""
    return f"{race.computed} denoiser calls made of {race.asked} for all; {100 * race.saved:.0f} % saved."


def _final(race: Race, number: int) -> Any:
    return race.finished[race.live.index(number)] if race.finished is not None and number in race.live else None


def _look(look: RaceLook) -> dict[str, Any]:
    return {
        "step": look.step,
        "sigma": look.sigma,
        "live": len(look.live),
        "dropped": len(look.dropped),
        "note": look.note,
    }


def _look_in_words(race: Race, look: RaceLook) -> str:
    end = f": {look.note}" if look.note else ""
    return (
        f"Look after step {look.step} of {race.steps} (sigma {look.sigma:.3g}): {len(look.live)} live, "
        f"{len(look.dropped)} dropped{end}."
    )


def _table(race: Race) -> str:
    found = rows(race)
    steps = list(dict.fromkeys(look.step for look in race.looks))
    columns = ["seed", *(["image"] if any(row["image"] for row in found) else [])]
    columns += [f"step {step}" for step in steps] + ["final", "best", "reason"]
    lines = [columns]
    for row in found:
        cells = {f"step {step}": _number(row["looks"].get(str(step))) for step in steps}
        named = {"seed": str(row["seed"]), "image": str(row["image"]), "final": _number(row["score"]), **cells}
        named |= {"best": "yes" if row["best"] else "", "reason": row["reason"]}
        lines.append([named[column] for column in columns])
    return aligned(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else numeral(value)
