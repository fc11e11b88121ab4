"""Ladders of damage beside the ratings: the options that the judge's training and its measurements share."""

from __future__ import annotations

import argparse
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
    group.add_argument("--average", type=float, help="decay of the weights' average (default: 0, none)")


def damage_of(arguments: argparse.Namespace) -> DamageLessons | None:
    """What was said; ``None`` without a folder.

    Raises:
        BadInput: weights without a folder.
    """
    from ..errors import BadInput
    from ..train.judge_damage import DamageLessons

    names = ("order_weight", "tasks_weight", "rank_weight", "average")
    told = {name.removesuffix("_weight"): value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.damage is None:
        if told:
            raise BadInput("weights together with --damage DIR", f"{', '.join(told)} alone", "Name the ladders.")
        return None
    return DamageLessons(arguments.damage, **told)
