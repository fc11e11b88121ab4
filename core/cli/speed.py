"""``latent-critic speed``: what scoring costs beside what it cannot do without, as ratios of one run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import Subparsers, add_json, check_targets, command


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "speed",
        "measure time and memory as ratios",
        "Each ratio is of two measurements of this run; at most its limit is good.",
    )
    parser.add_argument(
        "--comfyui", type=Path, metavar="DIR", help="a ComfyUI folder: adds the rows of the scorers on a loaded model"
    )
    add_json(parser, "a JSON list")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 when a ratio is above its limit."""
    from ..benchmark.speed import SpeedRequest, SpeedRow, run_speed
    from .console import note, say, table
    from .results import write_json

    check_targets(arguments.json)

    def watch(row: SpeedRow) -> None:
        note(f"{row.name}: {row.ratio:.3f} of at most {row.limit:g} ({row.detail})")

    note("measuring; each row is told as soon as it is there")
    rows: list[dict[str, Any]] = [row.to_dict() for row in run_speed(SpeedRequest(arguments.comfyui), watch)]
    write_json(rows, arguments.json)
    if arguments.json is None:
        cells = [["", "ratio", "limit", "unit", "name", "detail"]]
        for row in rows:
            verdict = "ok" if row["ratio"] <= row["limit"] else "MISS"
            numbers = (f"{row['ratio']:.3f}", f"{row['limit']:g}")
            cells.append([verdict, *numbers, str(row["unit"]), row["name"], str(row["detail"])])
        say(table(cells, right=[1, 2]))
    return 0 if all(row["ratio"] <= row["limit"] for row in rows) else 1
