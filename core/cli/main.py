"""``latent-critic``: the command line. Heavy imports happen inside the subcommands, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import LatentCriticError, NothingScored, UnwritableFile
from .console import note, say

#: Subcommands in the order of ``--help``: each is a module here with ``add(subparsers)``.
COMMANDS = (
    "demo",
    "score",
    "rank",
    "reject",
    "fit_head",
    "train",
    "head",
    "benchmark",
    "halving",
    "speed",
    "methods",
    "models",
    "history",
    "run_workflow",
)

_EPILOG = """exit codes: 0 all went well; 1 some images failed (they are listed); 2 wrong usage or input.
Each command explains itself: latent-critic score --help"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand. A subcommand stores its function of the arguments as ``run``."""
    parser = argparse.ArgumentParser(
        prog="latent-critic",
        description="Score, rank and reject images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f".{name}", __package__).add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (argparse itself leaves with 2 on wrong usage)."""
    arguments = build_parser().parse_args(argv)
    arguments.given = list(sys.argv[1:] if argv is None else argv)  # for a command that runs once more elsewhere
    try:
        return int(arguments.run(arguments))
    except LatentCriticError as error:
        note(f"latent-critic: {error}")
        return 1 if isinstance(error, (NothingScored, UnwritableFile)) else 2
    except KeyboardInterrupt:
        note("latent-critic: interrupted")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        note(f"latent-critic: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        say(f"{parser.prog} {version('latent-critic')}")
        parser.exit()


if __name__ == "__main__":
    raise SystemExit(main())
