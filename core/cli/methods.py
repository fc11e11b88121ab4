"""``latent-critic methods``: the registry of scorers."""

from __future__ import annotations

import argparse

from .arguments import Subparsers, add_json, check_targets, command


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "methods", "list the scorers, what each needs and where it comes from")
    add_json(parser, "a JSON list")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the registry."""
    from ..methods import METHODS
    from .console import say, table
    from .results import write_json

    check_targets(arguments.json)
    if arguments.json:
        write_json([info.to_dict() for info in METHODS], arguments.json)
        return 0
    rows = [["name", "needs", "scale", "here", "source"]]
    for info in METHODS:
        scale = "0 to 100" if info.calibrated else "ranks only"
        rows.append([info.name, ", ".join(info.needs), scale, "yes" if info.available else "planned", info.source])
    say(table(rows))
    return 0
