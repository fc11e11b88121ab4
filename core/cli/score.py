"""``latent-critic score``: one score per picture, in the order given."""

from __future__ import annotations

import argparse

from .arguments import Subparsers, add_images, add_outputs, add_scorer, command
from .inside_comfyui import where_asked


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "score", "give each picture a score", "Any number of pictures in constant memory.")
    add_images(parser)
    add_scorer(parser)
    add_outputs(parser)
    parser.set_defaults(run=where_asked(run))


def run(arguments: argparse.Namespace) -> int:
    """Score, print, write."""
    from .results import Outputs, conclude, say_scores, write_outputs
    from .scoring import ScoreRequest, score_files

    outputs = Outputs.of(arguments)
    batch = score_files(ScoreRequest.of(arguments, leave_out=outputs.leave_out))
    write_outputs(batch, outputs)
    if not outputs.on_stdout:
        say_scores(batch, list(range(len(batch))))
    return conclude(batch)
