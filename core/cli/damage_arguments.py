"""Ladders of damage beside the ratings: the options that the judge's training and its measurements share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..train.judge_damage import DamageLessons


def add_damage(parser: argparse.ArgumentParser) -> None:
    """Declare what can be said of ladders of damage."""
    group = parser.add_argument_group("ladders of damage, whose order the head learns beside the ratings")
    group.add_argument("--damage", type=Path, metavar="DIR", help="made by latent-critic train judge-ladders")
    group.add_argument("--order-weight", type=float, help="of a ladder's order (default: 0.5)")
    group.add_argument("--tasks-weight", type=float, help="of telling kind and extent (default: 0)")
    group.add_argument("--rank-weight", type=float, help="of the rated pictures' order (default: 0)")
    group.add_argument("--norm-weight", type=float, help="of their norm-in-norm loss (default: 0)")
    group.add_argument("--smooth-weight", type=float, help="of each rating's own loss, smooth L1 (default: 1)")
    group.add_argument("--average", type=float, help="decay of the weights' average (default: 0, none)")


def damage_of(arguments: argparse.Namespace, usual: Mapping[str, float] | None = None) -> DamageLessons | None:
    """What was said; ``None`` without a folder. ``usual`` weights are those of what was not said.

    Raises:
        BadInput: weights without a folder.
    """
    from ..errors import BadInput
    from ..train.judge_damage import WEIGHTS, DamageLessons

    options = {name: name if name == "average" else f"{name}_weight" for name in WEIGHTS}
    told = {name: value for name, option in options.items() if (value := getattr(arguments, option)) is not None}
    if arguments.damage is None:
        if told:
            raise BadInput("weights together with --damage DIR", f"{', '.join(told)} alone", "Name the ladders.")
        return None
    before = {name: value for name, value in (usual or {}).items() if name in WEIGHTS}
    return DamageLessons(arguments.damage, **(before | told))
