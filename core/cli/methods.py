"""``latent-critic methods``: the registry of scorers."""

from __future__ import annotations

import argparse

from .arguments import Subparsers, command


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "methods", "list the scorers, what each needs and where it comes from")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the registry."""
    from ..methods import METHODS
    from .console import say, say_json, table

    if arguments.json:
        say_json([info.to_dict() for info in METHODS])
        return 0
    rows = [["name", "needs", "scale", "here", "source"]]
    for info in METHODS:
        scale = "0 to 100" if info.calibrated else "ranks only"
        rows.append([info.name, ", ".join(info.needs), scale, "yes" if info.available else "planned", info.source])
    say(table(rows))
    return 0
