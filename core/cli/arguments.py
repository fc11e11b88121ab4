"""Arguments that several subcommands share, and their checks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..image_files import EXTENSIONS
from .loaded_model import add_model_place

Subparsers = Any  # argparse names the type only privately
DASH = "-"
#: Where ``--resume`` alone keeps its journal, in the current folder.
JOURNAL = "latent-critic.journal.jsonl"


def command(subparsers: Subparsers, name: str, summary: str, detail: str = "") -> argparse.ArgumentParser:
    """A subcommand's parser."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {detail}".strip(),
        allow_abbrev=False,
    )


def add_images(parser: argparse.ArgumentParser) -> None:
    """What to read."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IMAGES",
        help="pictures, folders (searched recursively; links to folders are not followed), quoted patterns",
    )
    parser.add_argument("--list", dest="list_file", metavar="FILE", help="a file with one path a line, or -")


def add_scorer(parser: argparse.ArgumentParser) -> None:
    """What scores, where, and how much at once."""
    parser.add_argument("--scorer", default="judge", metavar="NAME", help="see latent-critic methods (default: judge)")
    add_weights(parser)
    add_on_model(parser)
    parser.add_argument(
        "--restorations",
        metavar="DIR|off",
        help="diff_v2_iqa: where restored pictures are kept for the next run, 2 GB at most; off keeps none (default: "
        "restorations in $LATENT_CRITIC_CACHE, or in latent-critic in the user's cache folder)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: a GPU when there is one)")
    parser.add_argument(
        "--batch",
        type=int,
        default=8,
        metavar="N",
        help="images at once; changes no score (to within 1e-4 of the scale)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=JOURNAL,
        metavar="FILE",
        help=f"keep a journal (no FILE: {JOURNAL}) and take from it what was scored: a run that was stopped goes on",
    )


def add_on_model(parser: argparse.ArgumentParser) -> None:
    """For scorers on a diffusion model: the model, and the head that was made for it."""
    words = "zero_shot, lgdm, genziqa, dp_iqa, diff_v2_iqa (a diffusion model or restorer; all but the first: a head)"
    group = parser.add_argument_group(words)
    group.add_argument(
        "--head",
        metavar="FILE",
        help="from latent-critic fit-head, train genziqa or train dp-iqa, or the node Fit Head (default for genziqa "
        "and dp_iqa on the embedded model: the shipped head)",
    )
    group.add_argument(
        "--restorer", metavar="FILE", help="diff_v2_iqa: the pixel-space restorer of its head (default: the package's)"
    )
    add_model_place(group)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """``--weights FILE``: a judge of one's own; ``--policy``: how many views it looks at."""
    parser.add_argument(
        "--policy",
        choices=("full", "fast"),
        default="full",
        help="the judge's views: fast looks at fewer parts of each picture (its card has the loss; default: full)",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="a judge from latent-critic train judge (default: the built-in one)"
    )


def add_json(parser: argparse.ArgumentParser, words: str) -> None:
    """``--json [FILE]``; alone it prints."""
    parser.add_argument(
        "--json", nargs="?", const=DASH, metavar="FILE", help=f"write {words} (no FILE, or -: print it)"
    )


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where the scores go."""
    add_json(parser, "a JSON list")
    for form, words in (("csv", "CSV"), ("jsonl", "JSON lines")):
        parser.add_argument(f"--{form}", metavar="FILE", help=f"write {words} (- for standard output)")
    parser.add_argument("--contact-sheet", metavar="PNG", help="draw the pictures, best first, with their scores")
    parser.add_argument(
        "--sheet-cells", type=int, default=60, metavar="N", help="the sheet shows at most N: the best and the worst"
    )


def check_targets(*targets: str | None) -> None:
    """Refuse output files for text that cannot work, before hours of scoring.

    Raises:
        BadInput: a folder where a file should be, a file where a folder should be, a name of a picture (most likely an
            input that an option took for its file), or two results for one output.
    """
    named = [target for target in targets if target is not None]
    # Two names may lead to one file: a.csv and ./a.csv.
    if len({target if target == DASH else os.path.realpath(target) for target in named}) < len(named):
        raise BadInput("a different output for each result", " ".join(named), "Name each output once.")
    for target in named:
        path = Path(target)
        if target == DASH:
            continue
        if path.suffix.lower() in EXTENSIONS:
            raise BadInput("a file name for text", str(path), "Name the pictures first, then the output file.")
        if path.is_dir():
            raise BadInput("a file name for the output", f"the folder {path}", "Name a file in it; name inputs first.")
        blocked = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocked is not None:
            raise BadInput(f"a folder for {path.name}", f"the file {blocked}", "Name another folder.")
