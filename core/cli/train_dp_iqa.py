"""``latent-critic train dp-iqa``: learn DP-IQA's adapters and decoder for a model folder on rated pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note
from .training import model_and_processes, progress, rated

if TYPE_CHECKING:
    from ..train.dp_iqa_request import DpRequest


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "dp-iqa",
        "train a DP-IQA head: adapters and decoder for one model",
        "A stopped or killed run goes on with the same command. Several GPUs: start it with accelerate launch.",
    )
    parser.add_argument(
        "--data", required=True, metavar="LOADER=PATH[:WORST:BEST]", help="rated pictures: biq2021=DIR, csv=FILE:0:5 …"
    )
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the head's .safetensors")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="state, log, features")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a head to begin from; its adapters may differ")
    _add_reading(parser)
    _add_sizes(parser)
    _add_training(parser)
    parser.set_defaults(run=run)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how a picture is read (stays in the head)")
    group.add_argument("--timestep", type=int, help="of the one forward, without noise (default: 1, as published)")
    group.add_argument("--value-range", choices=("vae", "unit"), help="the VAE's own (default), or published [0, 1]")
    group.add_argument(
        "--text", choices=("end", "projected"), help="a sentence's token: end state (default), or published projection"
    )
    group.add_argument("--square", action="store_true", help="published: resized to a square")
    group.add_argument("--side", type=int, help="root of the area in pixels (default: the model's)")
    group.add_argument("--sample", type=int, metavar="SEED", help="draw from the VAE's posterior (default: its mode)")


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("networks (what is left out is as published)")
    group.add_argument("--width", type=int, help="channels of the decoder (default: 512)")
    group.add_argument("--kernel", type=int, choices=(1, 3), help="of its convolutions (default: 3)")
    group.add_argument("--squeeze", type=int, help="of its gates; 0 for none (default: 16)")
    group.add_argument("--thin", type=int, nargs="+", metavar="N", help="its 1×1 convolutions (default: 128 32 8)")
    group.add_argument("--cells", type=int, help="side of what is flattened (default: the finest map's)")
    group.add_argument("--hidden", type=int, help="units of the hidden layers (default: 512)")
    group.add_argument("--text-hidden", type=int, metavar="N", help="text adapter; 0 for none (default: token width)")
    group.add_argument("--image-width", type=int, metavar="N", help="image adapter; 0 for none (default: the levels')")
    group.add_argument("--image-blocks", type=int, metavar="N", help="its residual blocks a level (default: 2)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--freeze-decoder", action="store_true", help="train the adapters alone")
    group.add_argument("--steps", type=int, help="in all (default: 1000)")
    group.add_argument("--minutes", type=float, help="stop after this long, saved")
    group.add_argument("--batch", type=int, help="pictures a step (default: 16)")
    group.add_argument("--rows", type=int, help="pictures in one forward (default: 4)")
    group.add_argument("--rate", type=float, help="highest rate of AdamW (default: 1e-3)")
    group.add_argument("--decay", type=float, help="weight decay (default: 0.01)")
    group.add_argument("--drop", type=float, help="share of the flattened map dropped (default: 0)")
    group.add_argument("--average", type=float, help="decay of the weights' moving average (default: 0.995)")
    for name, default in (("mse", 1.0), ("rank", 0.0), ("plcc", 0.0)):
        group.add_argument(f"--{name}-weight", type=float, default=default, help=f"of that loss (default: {default:g})")
    group.add_argument("--no-mirror", action="store_true", help="do not mirror half of the pictures")
    group.add_argument("--limit", type=int, metavar="N", help="at most N pictures")
    group.add_argument("--share", type=float, help="held back for validation (default: 0.1)")
    group.add_argument("--by-group", action="store_true", help="split by the set's groups, not by content too")
    group.add_argument("--validate-every", type=int, metavar="STEPS")
    group.add_argument("--validate-on", type=int, metavar="N")
    group.add_argument("--calibrated-on", metavar="WORDS", help="whose ratings these are (default: your ratings)")
    group.add_argument("--seed", type=int, help="(default: 0)")
    group.add_argument("--device", default="cpu")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"))
    group.add_argument("--checkpoint", action="store_true", help="gradient checkpointing: less memory, more time")
    group.add_argument("--accelerate", action="store_true", help="under accelerate launch; its device")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    """Load, train, tell the validation figures."""
    from ..train.dp_iqa import train_dp_iqa

    request = request_of(arguments)
    backbone, world = model_and_processes(arguments, max(4, request.rows))
    with progress(request.steps, world.main) as watch:
        result = train_dp_iqa(request, backbone, watch, world)
    if not world.main:
        return 0
    told = result.validation
    figures = ", ".join(f"{name} {value:.3f}" for name, value in told.items() if isinstance(value, float))
    done = f"wrote {request.out}" if result.head else "saved; the same command goes on"
    note(f"step {result.step}, {result.seconds_per_step:.2f} s a step; {done}; held back: {figures or 'not measured'}")
    return 0


def request_of(arguments: argparse.Namespace) -> DpRequest:
    """The one request behind the arguments."""
    from ..methods.dp_iqa_settings import DpSettings
    from ..train.dp_iqa_request import DpRequest
    from ..train.genziqa_losses import LossWeights

    told = vars(arguments)

    def given(*names: str) -> dict[str, Any]:
        return {name: told[name] for name in names if told[name] is not None}

    sizes = given(
        "width", "kernel", "squeeze", "cells", "hidden", "text_hidden", "image_width", "image_blocks"
    )  # fmt: skip
    if arguments.thin:
        sizes["thin"] = tuple(arguments.thin)
    rest = given(
        "steps", "minutes", "batch", "rows", "rate", "decay", "drop", "average", "limit", "share", "validate_every",
        "validate_on", "calibrated_on", "seed", "precision",
    )  # fmt: skip
    reading = given("timestep", "value_range", "text", "side", "sample")
    return DpRequest(
        data=rated(arguments.data),
        out=arguments.out,
        run=arguments.folder,
        settings=DpSettings(square=arguments.square, **reading),
        sizes=sizes,
        start=arguments.start,
        freeze_decoder=arguments.freeze_decoder,
        losses=LossWeights(arguments.mse_weight, arguments.rank_weight, arguments.plcc_weight),
        flip=not arguments.no_mirror,
        content=not arguments.by_group,
        checkpoint=arguments.checkpoint,
        **rest,
    )
