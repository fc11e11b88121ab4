"""``latent-critic rank``: pictures from best to worst."""

from __future__ import annotations

import argparse

from ..errors import BadInput
from .arguments import Subparsers, add_images, add_outputs, add_scorer, command
from .inside_comfyui import where_asked


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "rank", "list pictures from best to worst", "Files that are written list all of them.")
    add_images(parser)
    add_scorer(parser)
    parser.add_argument("--top", type=int, metavar="N", help="print only the best N")
    parser.add_argument("--bottom", type=int, metavar="N", help="print only the worst N (with --top: both)")
    add_outputs(parser)
    parser.set_defaults(run=where_asked(run))


def run(arguments: argparse.Namespace) -> int:
    """Score, sort, print, write."""
    from .console import say
    from .results import Outputs, conclude, say_scores, write_outputs
    from .scoring import ScoreRequest, score_files

    outputs = Outputs.of(arguments)
    request = ScoreRequest.of(arguments, leave_out=outputs.leave_out)
    top, bottom = _count("--top", arguments.top), _count("--bottom", arguments.bottom)
    batch = score_files(request)
    ranking = batch.ranking()
    write_outputs(batch.take(ranking), outputs)
    if not outputs.on_stdout:
        best, worst = _ends(ranking, top, bottom)
        say_scores(batch, best, ranked=True)
        if best and worst:
            say(f"  ...  ({len(ranking) - len(best) - len(worst)} between)")
        say_scores(batch, worst, ranked=True)
    return conclude(batch)


def _ends(ranking: list[int], top: int | None, bottom: int | None) -> tuple[list[int], list[int]]:
    """The best and the worst to print; everything when neither is limited or the two ends meet."""
    if (top is None and bottom is None) or (top or 0) + (bottom or 0) >= len(ranking):
        return ranking, []
    return ranking[: top or 0], ranking[len(ranking) - (bottom or 0) :]


def _count(option: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise BadInput(f"{option} of at least 1", str(value), "Leave it out to list all.")
    return value
