"""``latent-critic train genziqa-beside``: a GenzIQA head beside the one that is installed, on pictures new to both."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .arguments import Subparsers, command
from .console import note, say, table
from .train_genziqa_check import add_place, bar, told_range


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "genziqa-beside",
        "compare a GenzIQA head with another on pictures that are new to both",
        "What a training left unseen, less all that the other's drew: an honest look before a head is replaced.",
    )
    parser.add_argument("--head", type=Path, required=True, metavar="FILE", help="as train genziqa wrote it")
    parser.add_argument("--other", type=Path, metavar="FILE", help="the installed one (default: the shipped head)")
    add_place(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="a JSON list that the comparison is added to")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, tell a table, keep."""
    from ..methods.genziqa_file import SHIPPED, load_genziqa
    from ..train.genziqa_beside import beside
    from .train_genziqa_check import model_of
    from .training import rated

    head, other = load_genziqa(arguments.head), load_genziqa(arguments.other or SHIPPED)
    data, backbone = rated(arguments.data), model_of(arguments)
    with bar() as watch:
        found = beside(head, other, backbone, data, arguments.folder, watch)
    apart = found["difference"]
    say(table([["head", "SRCC with people (95 %)"], *([name, told_range(found[name])] for name in ("head", "other"))]))
    say(f"head less other: {apart['difference']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f}), n = {found['n']}")
    if arguments.out is not None:
        _keep(arguments.out, found)
        note(f"wrote {arguments.out}")
    return 0


def _keep(path: Path, found: dict[str, Any]) -> None:
    """Add to the list, in the place of an earlier comparison of the same two heads."""
    from ..errors import UnreadableFile
    from ..files import write_text

    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        kept = [row for row in rows if _pair(row) != _pair(found)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(f"a list of comparisons in {path}", str(error), "Name another file.") from error
    write_text(path, json.dumps([*kept, found], indent=1) + "\n")


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["head"]["weights"], row["other"]["weights"]
