"""``latent-critic train judge-ladders``: make the ladders of damage that the judge learns from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import Subparsers, command
from .console import note


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "judge-ladders",
        "damage good pictures step by step for the judge to learn from",
        "Files are named by content, family, kind and level; a stopped run goes on with the same command.",
    )
    parser.add_argument("--contents", metavar="DIR", help="good pictures, of licences that allow it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for ladders alone")
    parser.add_argument(
        "--families", nargs="+", default=["camera", "scale", "structure", "latent"], metavar="NAME",
        help="camera, scale, structure, latent, generation (default: all but the last)",
    )  # fmt: skip
    parser.add_argument("--kinds", type=int, default=3, metavar="N", help="of each family, by content; 0: all")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 3, 5], metavar="N", help="of 1 to 5")
    parser.add_argument("--side", type=int, default=384, help="pictures are cut to this at most (default: 384)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N pictures, evenly over the folder")
    parser.add_argument("--reported", action="store_true", help="make the kinds of the held-out report as well")
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    group = parser.add_argument_group("generation from --model itself: sane against extreme settings")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt a line; needs no --contents")
    group.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="one prompt; may be repeated")
    group.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N")
    group.add_argument("--steps", type=int, default=30, help="a sane number (default: 30)")
    group.add_argument("--guidance", type=float, default=5.0, help="a sane guidance (default: 5)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make what is missing, tell how many there are."""
    import torch
    from tqdm import tqdm

    from ..errors import BadInput

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not (arguments.contents or arguments.prompts or arguments.prompt):
        raise BadInput("pictures or prompts", "neither", "Name them with --contents, --prompts or --prompt.")
    made: list[Path] = []
    with tqdm(file=sys.stderr, disable=None, leave=False, unit="content") as bar:

        def watch(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        if arguments.contents:
            made += _ladders(arguments, watch)
        if arguments.prompts or arguments.prompt:
            made += _extremes(arguments, watch)
    note(f"{len(made)} pictures of ladders in {arguments.out}")
    return 0


def _ladders(arguments: argparse.Namespace, watch: object) -> list[Path]:
    from ..train.judge_contents import find_contents
    from ..train.judge_ladders import LadderRequest, make_ladders

    found = find_contents(arguments.contents, arguments.out)
    contents = found.paths
    if arguments.limit is not None and 0 < arguments.limit < len(contents):
        contents = tuple(contents[place * len(contents) // arguments.limit] for place in range(arguments.limit))
    request = LadderRequest(
        contents,
        arguments.out,
        tuple(arguments.families),
        arguments.kinds or None,
        tuple(arguments.levels),
        arguments.side,
        arguments.reported,
        groups={path: found.groups[path] for path in contents if path in found.groups},
    )
    backbone = None
    if {"latent", "generation"} & set(arguments.families):
        from ..hosts.diffusers.backbone import DiffusersBackbone
        from ..hosts.diffusers.loading import load_pipeline

        backbone = DiffusersBackbone(load_pipeline(arguments.model, arguments.device))
    return make_ladders(request, backbone, watch)  # type: ignore[arg-type]


def _extremes(arguments: argparse.Namespace, watch: object) -> list[Path]:
    from ..hosts.diffusers.loading import load_pipeline
    from ..train.judge_extremes import ExtremesRequest, make_extremes, prompts_of

    request = ExtremesRequest(
        prompts_of(arguments.prompts, arguments.prompt),
        arguments.out,
        str(arguments.model),
        tuple(arguments.seeds),
        arguments.steps,
        arguments.guidance,
        absurd=max(40.0, 3 * arguments.guidance),
    )
    pipeline = load_pipeline(arguments.model, arguments.device)
    pipeline.set_progress_bar_config(disable=True)
    return make_extremes(request, pipeline, watch)  # type: ignore[arg-type]
