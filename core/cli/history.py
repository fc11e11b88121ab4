"""``latent-critic history``: what was scored before. Looks, exports, prunes."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .arguments import DASH, Subparsers, add_json, check_targets, command

if TYPE_CHECKING:
    from ..history.store import Choice, History

_DETAIL = """Without a further option: one line per scorer, model and settings. The file is the one that ComfyUI's nodes
write, user/latent_critic/history.sqlite in ComfyUI's folder, found where this package lies in custom_nodes; else name
it by --file or by the environment variable LATENT_CRITIC_HISTORY."""


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "history", "summarise, list, export or prune the scores given so far", _DETAIL)
    parser.add_argument("--file", metavar="SQLITE", help="the history file")
    parser.add_argument("--scorer", metavar="NAME", help="only scores of this scorer")
    parser.add_argument("--model", metavar="FINGERPRINT", help="only scores by this diffusion model (or a start of it)")
    parser.add_argument("--since", metavar="DATE", help="only from this time on: 2026-11-21, or 2026-11-21T06:00")
    parser.add_argument("--until", metavar="DATE", help="only before this time")
    parser.add_argument("--list", dest="most", type=int, metavar="N", help="list the newest N scores")
    parser.add_argument(
        "--export", metavar="FILE", help="write the scores to FILE.csv or FILE.jsonl (- prints JSON lines)"
    )
    parser.add_argument(
        "--prune",
        type=int,
        metavar="N",
        help="remove the chosen scores but the newest N (0: all); no picture is touched",
    )
    add_json(parser, "the summary as a JSON list")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for: an export first, then the pruning."""
    from ..history.store import Choice, History
    from .console import note

    check_targets(arguments.export, arguments.json)
    _check_form(arguments.export)
    since, until = (_seconds(option, getattr(arguments, option)) for option in ("since", "until"))
    choice = Choice(arguments.scorer, arguments.model, since, until)
    for option, value in (("--list", arguments.most), ("--prune", arguments.prune)):
        if value is not None and value < 0:
            raise BadInput(f"{option} of at least 0", str(value), "Raise it.")
    history = History(_file(arguments.file))
    if arguments.export is not None:
        _export(history, choice, arguments.export)
    if arguments.prune is not None:
        note(f"removed {history.prune(arguments.prune, choice)} scores from {history.path}")
    if arguments.most is not None:
        _list(history, choice, arguments.most)
    elif arguments.json is not None or (arguments.export is None and arguments.prune is None):
        _summary(history, choice, arguments.json)
    return 0


def _file(named: str | None) -> Path:
    """The history that is there.

    Raises:
        BadInput: none is.
    """
    from ..history.place import in_user_folder, location

    # <ComfyUI>/custom_nodes/<pack>/core/cli/history.py
    path = Path(named) if named else location(in_user_folder(Path(__file__).parents[4] / "user"))
    if path is None:
        raise BadInput("a history of scores", "LATENT_CRITIC_HISTORY is off", "Name the file by --file.")
    if not path.is_file():
        raise BadInput(
            "a history of scores", f"no file {path}", "Name it: --file ComfyUI/user/latent_critic/history.sqlite"
        )
    return path


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise BadInput(f"a date for --{option}", text, "Write 2026-11-21 or 2026-11-21T06:00.") from error


def _check_form(target: str | None) -> None:
    if target not in (None, DASH) and Path(target or "").suffix.lower() not in (".csv", ".jsonl"):
        raise BadInput("--export with a name that ends in .csv or .jsonl", str(target), "Or - to print JSON lines.")


def _export(history: History, choice: Choice, target: str) -> None:
    from ..export import csv_line, to_jsonl
    from ..history.store import COLUMNS
    from .results import write_form

    rows = history.query(choice)[::-1]
    if Path(target).suffix.lower() == ".csv":
        text = "".join([csv_line(COLUMNS), *(csv_line([row[name] for name in COLUMNS]) for row in rows)])
    else:
        specs = {digest: spec.to_dict() for digest, spec in history.specs().items()}
        text = to_jsonl({**row, "spec": {"digest": row["spec"], **specs[row["spec"]]}} for row in rows)
    write_form(text, target)


def _list(history: History, choice: Choice, most: int) -> None:
    from ..selection.policy import numeral
    from .console import say, table

    lines = [["time", "scorer", "score", "seed", "model", "reason"]]
    for row in history.query(choice, most):
        score = "–" if row["score"] is None else numeral(row["score"])
        lines.append([row["time"][:19], row["scorer"], score, _text(row["seed"]), _model(row), row["reason"] or ""])
    say(table(lines, right=[2]))


def _summary(history: History, choice: Choice, target: str | None) -> None:
    from ..selection.policy import numeral
    from .console import say, table
    from .results import write_json

    rows = history.summary(choice)
    if target is not None:
        write_json(rows, target)
        return
    lines = [["scorer", "settings", "scores", "lowest", "median", "highest", "first", "last", "model"]]
    for row in rows:
        spread = ["–" if row[name] is None else numeral(row[name]) for name in ("lowest", "median", "highest")]
        days = [row["first"][:10], row["last"][:10]]
        lines.append([row["scorer"], row["spec"][:8], str(row["count"]), *spread, *days, _model(row)])
    say(table(lines, right=[2, 3, 4, 5]) if rows else "no scores")


def _model(row: dict[str, Any]) -> str:
    return _text(row["model"])


def _text(value: Any) -> str:
    return "–" if value is None else str(value)
