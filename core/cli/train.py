"""``latent-critic train``: one subcommand for each thing that can be trained."""

from __future__ import annotations

from . import (
    train_diff_v2,
    train_dp_iqa,
    train_genziqa,
    train_judge,
    train_judge_finetune,
    train_judge_ladders,
    train_judge_study,
    train_judge_views,
    train_ldm,
    train_restorer,
)
from .arguments import Subparsers, command


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand and its own subcommands."""
    parser = command(subparsers, "train", "train what ships with the package", "Needs the extras train and diffusers.")
    kinds = parser.add_subparsers(title="what to train", metavar="WHAT", required=True)
    train_judge.add(kinds)
    train_judge_views.add(kinds)
    train_judge_ladders.add(kinds)
    train_judge_finetune.add(kinds)
    train_judge_study.add(kinds)
    train_genziqa.add(kinds)
    train_dp_iqa.add(kinds)
    train_diff_v2.add(kinds)
    train_restorer.add(kinds)
    train_ldm.add(kinds)
