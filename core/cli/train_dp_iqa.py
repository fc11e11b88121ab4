"""``latent-critic train dp-iqa``: learn DP-IQA's adapters and decoder for a model folder on rated pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note
from .training import add_head, add_training, model_and_processes, progress, trained_words, training_given

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
    add_head(parser, "state, log, features")
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a head to begin from; its adapters may differ")
    _add_reading(parser)
    _add_sizes(parser)
    group = add_training(parser, "pictures in one forward", "share of the flattened map dropped (default: 0)")
    group.add_argument("--freeze-decoder", action="store_true", help="train the adapters alone")
    group.add_argument("--checkpoint", action="store_true", help="gradient checkpointing: less memory, more time")
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


def run(arguments: argparse.Namespace) -> int:
    """Load, train, tell the validation figures."""
    from ..train.dp_iqa import train_dp_iqa

    request = request_of(arguments)
    backbone, world = model_and_processes(arguments, max(4, request.rows))
    with progress(request.steps, world.main) as watch:
        result = train_dp_iqa(request, backbone, watch, world)
    if not world.main:
        return 0
    written = request.out if result.head else None
    note(trained_words(result.step, result.seconds_per_step, written, result.validation))
    return 0


def request_of(arguments: argparse.Namespace) -> DpRequest:
    """The one request behind the arguments."""
    from ..methods.dp_iqa_settings import DpSettings
    from ..train.dp_iqa_request import DpRequest

    told = vars(arguments)

    def given(*names: str) -> dict[str, Any]:
        return {name: told[name] for name in names if told[name] is not None}

    sizes = given(
        "width", "kernel", "squeeze", "cells", "hidden", "text_hidden", "image_width", "image_blocks"
    )  # fmt: skip
    if arguments.thin:
        sizes["thin"] = tuple(arguments.thin)
    reading = given("timestep", "value_range", "text", "side", "sample")
    return DpRequest(
        **training_given(arguments),
        settings=DpSettings(square=arguments.square, **reading),
        sizes=sizes,
        start=arguments.start,
        freeze_decoder=arguments.freeze_decoder,
        checkpoint=arguments.checkpoint,
    )
