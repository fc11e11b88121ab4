"""``latent-critic train ldm``, ``ldm-check`` and ``ldm-pictures``: the embedded diffusion model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note

if TYPE_CHECKING:
    from ..train.ldm.settings import Architecture


def add(subparsers: Subparsers) -> None:
    """Declare the three subcommands of ``train``."""
    _add_ldm(subparsers)
    _add_ldm_check(subparsers)
    _add_ldm_pictures(subparsers)


def _add_ldm(kinds: Subparsers) -> None:
    parser = command(
        kinds, "ldm", "train the embedded diffusion model", "Stops by the clock, saved; the same command goes on."
    )
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="pictures, maybe manifest.json")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="folder", help="state and log")
    parser.add_argument("--stage", choices=("autoencoder", "denoiser"), default="autoencoder")
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this long (default: 10)")
    parser.add_argument("--steps", type=int, help="stop at this step")
    parser.add_argument("--start", type=Path, metavar="DIR", help="model folder to begin from (default: the shipped)")
    parser.add_argument("--from-scratch", action="store_true", help="begin from random weights")
    _add_sizes(parser.add_argument_group("sizes, from scratch"))
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the model folder, fp16, at the end")
    parser.add_argument("--size", type=int, default=128, help="side of the crops (default: 128)")
    parser.add_argument("--batch", type=int, default=16, help="crops per step (default: 16)")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate (default: 0.001)")
    parser.add_argument("--horizon", type=int, default=50_000, help="step at which the rate has fallen")
    parser.add_argument("--shallow", type=int, default=1000, help="autoencoder: first steps without residual blocks")
    parser.add_argument("--coarse", type=int, default=5000, help="autoencoder: until here without the fine blocks")
    parser.add_argument("--perceptual", type=float, default=0.0, help="autoencoder: weight of the perceptual term")
    parser.add_argument("--pool", type=int, default=2048, help="denoiser: crops encoded at a time")
    parser.add_argument("--pool-steps", type=int, default=500, help="denoiser: steps with one pool")
    parser.add_argument("--low-noise", type=float, default=0.4, help="denoiser: share of rows from t < 200 alone")
    parser.add_argument("--measured", type=int, default=24, help="held-back pictures to measure on (default: 24)")
    parser.add_argument(
        "--memory", type=float, default=2.0, metavar="GB", help="of pictures; the rest is read again (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default: cpu)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=_train_ldm)


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--unet-channels", type=int, nargs="+", metavar="N", help="of each scale (default: 64 128 128)")
    group.add_argument("--unet-heads", type=int, metavar="N", help="of attention (default: 4)")
    group.add_argument("--text-width", type=int, metavar="N", help="of the text encoder (default: 128)")
    group.add_argument("--text-layers", type=int, metavar="N", help="of the text encoder (default: 2)")


def _architecture(arguments: argparse.Namespace) -> Architecture:
    from ..errors import BadInput
    from ..train.ldm.settings import Architecture

    names = ("unet_channels", "unet_heads", "text_width", "text_layers")
    told = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if told and not arguments.from_scratch:
        got = ", ".join(f"--{name.replace('_', '-')}" for name in told)
        raise BadInput("sizes together with --from-scratch", f"{got} alone", "Weights that go on keep their sizes.")
    if "unet_channels" in told:
        told["unet_channels"] = tuple(told["unet_channels"])
    return Architecture(**told)


def _train_ldm(arguments: argparse.Namespace) -> int:
    architecture = _architecture(arguments)  # before anything heavy is imported

    import torch

    from ..nets.critic_ldm import SHIPPED
    from ..train.ldm.run import train_ldm
    from ..train.ldm.settings import Request

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    start = None if arguments.from_scratch else arguments.start or SHIPPED
    named: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name in Request.__dataclass_fields__
    }
    named |= {"run": arguments.folder, "start": start, "architecture": architecture}
    result = train_ldm(Request(**named))
    note(", ".join(f"{name} {value}" for name, value in result.items()))
    return 0


def _add_ldm_check(kinds: Subparsers) -> None:
    parser = command(
        kinds, "ldm-check", "measure the embedded diffusion model", "PSNR, words against damage, nearest neighbours."
    )
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="what it was trained on")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder (default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the sheets and figures.json")
    parser.add_argument("--card", type=Path, metavar="FILE", help="a model card whose table of figures is rewritten")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    parser.add_argument("--held-back", type=int, default=40, help="held-back pictures to use (default: 40)")
    parser.add_argument("--samples-per-caption", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="sampling steps (default: 30)")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_check_ldm)


def _check_ldm(arguments: argparse.Namespace) -> int:
    import json

    from ..files import write_text
    from ..nets.critic_ldm import SHIPPED
    from ..train.ldm.bundle import read_record
    from ..train.ldm.card import fill_card
    from ..train.ldm.check import CheckRequest, check

    named: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name in CheckRequest.__dataclass_fields__
    }
    named["model"] = arguments.model or SHIPPED
    figures = check(CheckRequest(**named))
    write_text(arguments.out / "figures.json", json.dumps(figures, indent=2) + "\n")
    if arguments.card:
        settings = ("size", "held_back", "samples_per_caption", "steps", "guidance", "seed", "device")
        flags = " ".join(f"--{name.replace('_', '-')} {named[name]}" for name in settings)
        fill_card(arguments.card, read_record(named["model"]), figures, f"latent-critic train ldm-check {flags}")
    note(json.dumps(figures))
    return 0


def _add_ldm_pictures(kinds: Subparsers) -> None:
    parser = command(kinds, "ldm-pictures", "make the folder of pictures that the shipped weights were trained on")
    parser.add_argument(
        "--source",
        action="append",
        required=True,
        metavar="NAME=DIR",
        help="where a source of core/assets/critic_ldm/manifest.json was unpacked to; once for each",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=_gather_pictures)


def _gather_pictures(arguments: argparse.Namespace) -> int:
    from ..errors import BadInput
    from ..train.ldm.gather import gather

    pairs = [source.partition("=") for source in arguments.source]
    if not all(name and folder for name, _, folder in pairs):
        raise BadInput("--source NAME=DIR", " ".join(arguments.source), "Write a name, an equals sign and a folder.")
    count = gather({name: Path(folder) for name, _, folder in pairs}, arguments.out)
    note(f"{count} pictures in {arguments.out}")
    return 0
