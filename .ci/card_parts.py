"""Tables that the cards of shipped heads share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import readme

NOT_YET = "Not measured yet."


def read(path: Path) -> Any:
    """A JSON file's content, ``None`` where it is not there yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def plain_table(rows: Mapping[str, Any]) -> str:
    """Names and values."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def interval(row: dict[str, Any], name: str) -> str:
    """A figure with its 95 % interval."""
    return f"{row[name]:.3f} ({row[name + '_low']:.3f} – {row[name + '_high']:.3f})"


def ladders_table(found: dict[str, Any]) -> str:
    """In how many visible steps of each kind of damage the score fell, worst first; which kinds it rewards."""
    kinds = {kind.replace("_", " "): (count["fell"], count["visible"]) for kind, count in found["kinds"].items()}
    kinds = dict(sorted(kinds.items(), key=lambda item: item[1][0] / max(1, item[1][1])))
    fell, visible = (sum(counts) for counts in zip(*kinds.values(), strict=True))
    blind = [kind for kind, (low, seen) in kinds.items() if seen and 3 * low < 2 * seen]
    rows = [f"| {kind} | {low} of {seen} steps |" for kind, (low, seen) in kinds.items() if seen]
    return "\n".join(
        [
            "| damage | the score fell in |",
            "|---|---|",
            *rows,
            f"| **all kinds** | **{fell} of {visible} steps** |",
            "",
            f"It did not fall in more than a third of the steps of: {', '.join(blind) or 'no kind'}.",
        ]
    )


def held_out_table(rows: list[dict[str, Any]], scorer: str, bar: float) -> str:
    """How often the score fell with damage of kinds that nothing in this project is trained on."""
    lines = [
        "| scorer | visible steps | the score fell in (95 %) | order of a ladder, SRCC (95 %) |",
        "|---|--:|---|---|",
    ]
    for row in rows:
        share = f"{100 * row['share']:.1f} % ({100 * row['share_low']:.1f} – {100 * row['share_high']:.1f})"
        lines.append(f"| `{row['scorer']}` | {row['n']:,} | {share} | {interval(row, 'srcc')} |")
    own = next(row for row in rows if row["scorer"] == scorer)
    kinds = [f"{kind.replace('_', ' ')} {told['falls']} of {told['n']}" for kind, told in own["kinds"].items()]
    passed = "reaches" if own["share"] >= bar else "misses"
    return "\n".join([*lines, "", f"By kind: {', '.join(kinds)}. It {passed} this project's bar of {bar:.0%}."])


def tests_table(rows: list[dict[str, Any]]) -> str:
    """Rows on test sets, and how far the scorers lie apart on the same pictures."""
    lines = [readme.accuracy_table([{**row, "backbone": None} for row in rows]), ""]
    for row in rows:
        if row.get("versus"):
            told = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} – {row['difference_high']:+.3f})"
            lines.append(
                f"{row['data']}: `{row['scorer']}` less `{row['versus']}`, paired: {told}, p = {row['p']:.3f}."
            )
    return "\n".join(lines)
