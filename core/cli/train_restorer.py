"""``latent-critic train restorer``: learn to restore pictures, on clean ones and our ladders of damage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import train_restorer_check
from .arguments import Subparsers, command
from .console import note
from .training import progress

if TYPE_CHECKING:
    from ..nets.restorer import RestorerShape
    from ..train.restorer_request import RestorerRequest

#: Few steps are for DDIM; as many as these go as published.
_MANY = 40


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "restorer",
        "train a pixel-space restorer (DiffV2IQA) on clean pictures",
        "Damage is made on the way. A stopped or killed run goes on with the same command. Several GPUs: start it with "
        "accelerate launch.",
    )
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="clean pictures, maybe a manifest")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the restorer's .safetensors")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="state and log")
    _add_sizes(parser)
    _add_training(parser)
    parser.set_defaults(run=run)
    train_restorer_check.add(kinds)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network (without --published: the narrow one, with these changes)")
    group.add_argument("--published", action="store_true", help="98 million parameters, predicting eps")
    group.add_argument("--inner", type=int, help="channels that the multipliers multiply")
    group.add_argument("--multipliers", type=int, nargs="+", metavar="N", help="of each level; each halves the sides")
    group.add_argument("--blocks", type=int, help="residual blocks of a level")
    group.add_argument("--dropout", type=float)
    group.add_argument("--side", type=int, dest="native", help="of the crops (default: 64)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, help="in all (default: 10000)")
    group.add_argument("--minutes", type=float, help="stop after this long, saved and written")
    group.add_argument("--batch", type=int, help="pairs a step (default: 32; published: 256)")
    group.add_argument("--rate", type=float, help="Adam's highest (default: 1e-3; published: 1e-5)")
    group.add_argument("--constant", action="store_true", help="the rate does not fall, as published")
    group.add_argument("--loss", choices=("l1", "l2"), help="(default: l1)")
    group.add_argument("--average", type=float, help="decay of the weights' moving average (default: 0.999)")
    group.add_argument("--kinds", nargs="+", metavar="KIND", help="of damage (default: all eleven)")
    group.add_argument("--untouched", type=float, help="share of pairs without damage (default: 0.05)")
    group.add_argument("--pure", type=float, help="share of pairs at the first, purely noisy level (default: 0)")
    group.add_argument("--highest-noise", type=float, help="of the other pairs, up to 1 (default: 1, all levels)")
    group.add_argument("--own", type=float, help="share of them noised from the network's own estimate (default: 0)")
    group.add_argument(
        "--inference", type=int, help="steps to restore with, 4 to 50 (default: 50; below 40 by DDIM, else ancestral)"
    )
    group.add_argument(
        "--every", type=int, metavar="N", help="take the first of every N training pictures (default: 1)"
    )
    group.add_argument("--validate-every", type=int, metavar="STEPS")
    group.add_argument("--validate-on", type=int, metavar="N", help="held-back pairs (default: 110)")
    group.add_argument("--seed", type=int, help="(default: 0)")
    group.add_argument("--device", default="cpu")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"))
    group.add_argument("--accelerate", action="store_true", help="under accelerate launch; its device")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    """Train, tell the validation figures."""
    import torch

    from ..train.genziqa_world import Accelerated
    from ..train.restorer import train_restorer

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    request = request_of(arguments)
    world = Accelerated() if arguments.accelerate else None
    device = arguments.device if world is None else world.device
    with progress(request.steps, world is None or world.main) as watch:
        result = train_restorer(request, watch, world, device)
    if world is not None and not world.main:
        return 0
    told = result.validation
    more = "" if result.written else "; the same command goes on"
    note(
        f"step {result.step}, {result.seconds_per_step:.2f} s a step, {result.parameters} parameters; wrote "
        f"{request.out}{more}; held back: PSNR {told['psnr_damaged']:.2f} dB damaged, {told['psnr_restored']:.2f} dB "
        f"restored, {100 * told['nearer']:.0f} % nearer"
    )
    return 0


def request_of(arguments: argparse.Namespace) -> RestorerRequest:
    """The one request behind the arguments."""
    from ..train.restorer_request import RestorerRequest

    told = vars(arguments)
    names = (
        "steps", "minutes", "batch", "rate", "loss", "average", "untouched", "pure", "highest_noise", "own",
        "inference", "every",
        "validate_every", "validate_on", "seed", "precision",
    )  # fmt: skip
    given: dict[str, Any] = {name: told[name] for name in names if told[name] is not None}
    if arguments.kinds:
        given["kinds"] = tuple(arguments.kinds)
    if arguments.inference is not None and arguments.inference < _MANY:
        given["eta"] = 0.0
    return RestorerRequest(
        pictures=arguments.pictures,
        out=arguments.out,
        run=arguments.folder,
        shape=_shape(told),
        falls=not arguments.constant,
        **given,
    )


def _shape(told: dict[str, Any]) -> RestorerShape:
    from dataclasses import replace

    from ..nets.restorer import NARROW, RestorerShape

    given = {name: told[name] for name in ("inner", "blocks", "dropout", "native") if told[name] is not None}
    if told["multipliers"]:
        given["multipliers"] = tuple(told["multipliers"])
    return replace(RestorerShape() if told["published"] else NARROW, **given)
