"""The plan of a sorting, on disk before the first file goes: a run that is cut short is finished by it, not anew.

What is left of the pictures would give relative rules (top k, percentile) another answer.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..export import csv_line, printable
from ..files import whole_file, write_text
from .buckets import destination, free_name, put, same_file

COLUMNS = ("path", "bucket", "destination", "index", "score", "rank", "why")
#: One name for each way of sorting, so that a copy is never finished as a move.
_UNFINISHED = {False: "unfinished-copy.csv", True: "unfinished-move.csv"}

Rows = list[dict[str, Any]]


def unfinished(out: Path) -> tuple[bool, Rows] | None:
    """Whether the run that was cut short in this folder moves, and its rows; ``None`` when there is none.

    Raises:
        BadInput: a file of that name that is no plan.
    """
    for move, name in _UNFINISHED.items():
        path = out / name
        if path.exists():
            return move, _read(path)
    return None


def finish(rows: Rows, out: Path, move: bool) -> Path:
    """Write the plan, put every file where it says, then turn the plan into the report; returns the report's path.

    May be called again with the rows of a plan that was cut short.
    """
    plan = out / _UNFINISHED[move]
    lines = [COLUMNS, *([_cell(row, name) for name in COLUMNS] for row in rows)]
    with whole_file(plan) as temporary:
        # Names that are no text are kept byte by byte: the files must be found again.
        temporary.write_bytes("".join(csv_line(line) for line in lines).encode("utf-8", "surrogateescape"))
    taken = {Path(row["destination"]) for row in rows if row["destination"] is not None}
    for row in rows:
        if row["destination"] is not None:
            _put(row, taken, move)
    report = free_name(out / "report.csv")
    write_text(report, "".join(printable(csv_line(line)) for line in _lines(rows)))
    plan.unlink()
    return report


def _put(row: dict[str, Any], taken: set[Path], move: bool) -> None:
    source, target = Path(row["path"]), Path(row["destination"])
    if not os.path.lexists(source):
        return  # moved before, or taken away by someone
    if os.path.lexists(target) and not same_file(source, target):
        # Another file has taken the name since.
        target = destination(source, target.parent, taken)
        taken.add(target)
        row["destination"] = str(target)
    put(source, target, move)


def gone(rows: Rows) -> list[str]:
    """The pictures that are neither at their old name nor at their destination."""
    return [
        row["path"]
        for row in rows
        if row["destination"] is not None
        and not os.path.lexists(row["path"])
        and not os.path.lexists(row["destination"])
    ]


def elsewhere(rows: Rows, out: Path) -> list[Path]:
    """Pictures of this plan whose copy an earlier run put in the other bucket."""
    taken = {Path(row["destination"]) for row in rows if row["destination"] is not None}
    found = []
    for row in rows:
        if row["destination"] is not None:
            other = out / ("rejected" if row["bucket"] == "kept" else "kept")
            found += _copies(Path(row["path"]), other, taken)
    return found


def _copies(source: Path, folder: Path, taken: Collection[Path]) -> list[Path]:
    candidate = destination(source, folder, taken)
    return [candidate] if candidate.exists() else []


def _cell(row: dict[str, Any], name: str) -> Any:
    value = row[name]
    return os.path.abspath(value) if name in ("path", "destination") and value is not None else value  # noqa: PTH100


def _lines(rows: Rows) -> list[Sequence[Any]]:
    return [COLUMNS, *(tuple(row[name] for name in COLUMNS) for row in rows)]


def _read(path: Path) -> Rows:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    try:
        heading, *lines = csv.reader(io.StringIO(text, newline=""))
        if tuple(heading) != COLUMNS:
            raise ValueError(f"the heading {','.join(heading)}")
        return [_parsed(dict(zip(COLUMNS, cells, strict=True))) for cells in lines]
    except (ValueError, csv.Error) as error:
        raise BadInput(
            f"the plan of a reject run at {path}", str(error), "Name another --out, or delete that file."
        ) from error


def _parsed(cells: dict[str, str]) -> dict[str, Any]:
    return {
        **cells,
        "destination": cells["destination"] or None,
        "index": int(cells["index"]) if cells["index"] else None,
        "score": float(cells["score"]) if cells["score"] else None,
        "rank": int(cells["rank"]) if cells["rank"] else None,
    }
