"""``latent-critic train genziqa``: learn a GenzIQA head for a model folder on rated pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import train_genziqa_beside, train_genziqa_check
from .arguments import Subparsers, command
from .console import note
from .training import model_and_processes, progress, rated

if TYPE_CHECKING:
    from ..train.genziqa_request import GenzRequest


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "genziqa",
        "train a GenzIQA head: prompts and LoRA for one model",
        "A stopped or killed run goes on with the same command. Several GPUs: start it with accelerate launch.",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="LOADER=PATH[:WORST:BEST]",
        help="rated pictures: biq2021=DIR, csv=FILE:0:5 …; may be given again; the first set is measured on",
    )
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the head's .safetensors")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="state and log")
    _add_reading(parser)
    _add_training(parser)
    parser.set_defaults(run=run)
    train_genziqa_check.add(kinds)
    train_genziqa_beside.add(kinds)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how a picture is read (stays in the head)")
    group.add_argument("--words", nargs=2, metavar=("GOOD", "BAD"), help="after the context (default: as published)")
    group.add_argument("--context", type=int, help="learned vectors (default: 16)")
    group.add_argument("--padding-mask", action="store_true", help="published: the text's padding is masked")
    group.add_argument("--rank", type=int, help="of the LoRA; 0 for none (default: 4)")
    group.add_argument(
        "--timesteps", type=int, nargs="+", metavar="T", help="levels of the score (default: published 8)"
    )
    group.add_argument("--bias-weight", type=float, help="of the noise-error bias; 0 for none (default: 128)")
    group.add_argument("--temperature", type=float, help="of the soft maximum over queries (default: 0.14)")
    group.add_argument("--contrast", action="store_true", help="good less bad attention, not their mean")
    group.add_argument("--value-range", choices=("vae", "clip"), default="vae", help="the VAE's own, or published clip")
    group.add_argument("--square", action="store_true", help="published: resized to a square")
    group.add_argument("--side", type=int, help="root of the area in pixels (default: the model's)")
    group.add_argument("--noise-seed", type=int, default=0, help="of the noise bank (default: 0)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=int, help="in all (default: 1000)")
    group.add_argument("--minutes", type=float, help="stop after this long, saved")
    group.add_argument("--batch", type=int, help="pictures a step (default: 16)")
    group.add_argument("--rate", type=float, help="AdamW's (default: 1e-4)")
    for name, default in (("mse", 1.0), ("rank", 0.0), ("plcc", 0.0)):
        group.add_argument(f"--{name}-weight", type=float, default=default, help=f"of that loss (default: {default:g})")
    group.add_argument("--levels", type=int, nargs="+", metavar="T", help="to train at (default: 0 to 99)")
    group.add_argument("--one-level", action="store_true", help="one level for all pictures of a step")
    group.add_argument(
        "--published-readout", action="store_true", help="raw score = MOS; no gain and offset are fitted"
    )
    group.add_argument("--limit", type=int, metavar="N", help="at most N pictures of each set")
    group.add_argument(
        "--no-mirror", action="store_true", help="leave pictures as they are; half are mirrored otherwise"
    )
    group.add_argument("--ladders", type=int, metavar="N", help="damaged pairs a step, to be told apart (default: 0)")
    group.add_argument("--ladder-weight", type=float, help="of their loss (default: 1)")
    group.add_argument("--ladder-kinds", nargs="+", metavar="KIND", help="(default: gaussian_blur white_noise jpeg)")
    group.add_argument(
        "--share", type=float, help="held back, half to choose the step by, half for the figures (default: 0.2)"
    )
    group.add_argument("--by-group", action="store_true", help="split by the set's groups, not by content too")
    group.add_argument("--validate-every", type=int, metavar="STEPS")
    group.add_argument("--validate-on", type=int, metavar="N")
    group.add_argument("--calibrate-on", type=int, metavar="N", help="pictures behind gain and offset (default: 128)")
    scale = group.add_mutually_exclusive_group()
    scale.add_argument("--calibrated-on", metavar="WORDS", help="whose ratings these are (default: your ratings)")
    scale.add_argument("--rank-only", action="store_true", help="scores that only rank, without a scale of 0 to 100")
    group.add_argument("--seed", type=int, help="(default: 0)")
    group.add_argument("--device", default="cpu")
    group.add_argument("--precision", choices=("fp32", "bf16"))
    group.add_argument("--half", action="store_true", help="write the head in fp16, half the file")
    group.add_argument("--accelerate", action="store_true", help="under accelerate launch; its device")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    """Load, train, tell the validation figures."""
    from ..train.genziqa import train_genziqa

    request = request_of(arguments)
    backbone, world = model_and_processes(arguments, 4 * request.batch)
    with progress(request.steps, world.main) as watch:
        result = train_genziqa(request, backbone, watch, world)
    told = result.validation
    figures = ", ".join(f"{name} {value:.3f}" for name, value in told.items() if isinstance(value, float))
    done = f"wrote {request.out}" if result.head else "saved; the same command goes on"
    if world.main:
        processes = f" in {world.size} processes" if arguments.accelerate else ""
        note(f"step {result.step}{processes}, {result.seconds_per_step:.2f} s a step; {done}")
        note(f"held back: {figures or 'not measured'}")
    return 0


def request_of(arguments: argparse.Namespace) -> GenzRequest:
    """The one request behind the arguments."""
    from ..methods.genziqa_settings import GenzSettings
    from ..train.genziqa_losses import LossWeights
    from ..train.genziqa_request import GenzRequest

    told = vars(arguments)
    names = ("context", "rank", "steps", "minutes", "batch", "rate", "limit", "share", "ladders", "ladder_weight",
             "validate_every", "validate_on", "calibrate_on", "calibrated_on", "seed", "precision")  # fmt: skip
    given: dict[str, Any] = {name: told[name] for name in names if told[name] is not None}
    reading: dict[str, Any] = {
        name: told[name] for name in ("bias_weight", "side", "temperature") if told[name] is not None
    }
    if arguments.timesteps:
        reading["timesteps"] = tuple(arguments.timesteps)
    for name in ("contrast", "square", "value_range"):
        reading[name] = told[name]
    if arguments.rank_only:
        given["calibrated_on"] = None
    if arguments.words:
        given["words"] = tuple(arguments.words)
    if arguments.levels:
        given["levels"] = tuple(arguments.levels)
    if arguments.ladder_kinds:
        given["ladder_kinds"] = tuple(arguments.ladder_kinds)
    return GenzRequest(
        content=not arguments.by_group,
        data=tuple(rated(text) for text in arguments.data),
        out=arguments.out,
        run=arguments.folder,
        settings=GenzSettings(seed=arguments.noise_seed, **reading),
        losses=LossWeights(arguments.mse_weight, arguments.rank_weight, arguments.plcc_weight),
        one_level=arguments.one_level,
        flip=not arguments.no_mirror,
        padding_mask=arguments.padding_mask,
        half=arguments.half,
        readout=not arguments.published_readout,
        **given,
    )
