"""An ablation as JSON, CSV and Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..export import csv_line
from ..files import write_text
from .ablate_records import Ablation, AblationRow

_COLUMNS = (
    "group", "cell", "train", "n", "srcc", "srcc_low", "srcc_high", "plcc", "difference", "difference_low",
    "difference_high", "p", "features", "seconds", "chosen",
)  # fmt: skip


def write_ablation(folder: Path, found: Ablation, told: dict[str, Any]) -> None:
    """``ablation.json``, ``.csv`` and ``.md`` in a folder, each whole or absent."""
    rows = [row.to_dict() for row in found.rows]
    whole = {**told, "rows": rows, "noise": found.noise, "failed": found.failed}
    write_text(folder / "ablation.json", json.dumps(whole, indent=1, default=str) + "\n")
    lines = [csv_line(_COLUMNS), *(csv_line([_cell(row[name]) for name in _COLUMNS]) for row in rows)]
    write_text(folder / "ablation.csv", "".join(lines))
    write_text(folder / "ablation.md", to_markdown(found, told))


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


def to_markdown(found: Ablation, told: dict[str, Any]) -> str:
    """A table, and under it what was compared and the spread over noise draws."""
    lines = [
        "| varied | setting | SRCC (95 % interval) | PLCC | difference to the base (95 %, paired) | p | s a picture |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in found.rows),
        "",
        f"{told['data']}, training part only: heads fitted to {found.rows[0].train} pictures, compared on "
        f"{found.rows[0].n} others, cut off by content. Base: {told['base']}. Intervals are bootstrapped over "
        "contents; p values are not adjusted for the number of cells.",
    ]
    if found.noise:
        spread = found.noise["spread"]
        each = ", ".join(f"{value:.3f}" for value in found.noise["srcc_of_each_draw"])
        words = "no" if spread is None else f"{spread:.2f}"
        lines.append(
            f"Spread over {found.noise['draws']} noise draws: {words} standard deviations of the scores over pictures; "
            f"SRCC of each draw {each}; of their mean {found.noise['srcc_of_the_mean']:.3f}."
        )
    lines += [f"Not measured: {name}: {reason}" for name, reason in found.failed.items()]
    return "\n".join(lines) + "\n"


def _line(row: AblationRow) -> str:
    own = f"{row.srcc:.3f} ({row.srcc_low:.3f} to {row.srcc_high:.3f})"
    apart = f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"
    seconds = "–" if row.seconds is None else f"{row.seconds:.2f}"
    base = row.group == "base"
    cells = (
        row.group,
        row.cell,
        own,
        f"{row.plcc:.3f}",
        "–" if base else apart,
        "–" if base else f"{row.p:.3f}",
        seconds,
    )
    return f"| {' | '.join(cells)} |"
