"""``latent-critic head``: GenzIQA heads in and out of the authors' layout, and what a head's file says of its model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Subparsers, command
from .console import note

if TYPE_CHECKING:
    from ..hosts.diffusers.backbone import DiffusersBackbone


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "head", "convert a GenzIQA head from and to its authors' layout, or stamp it")
    kinds = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    _add_import(kinds)
    _add_export(kinds)
    _add_stamp(kinds)


def _add_import(kinds: Subparsers) -> None:
    parser = command(kinds, "import", "make a head of the files that the authors' own training wrote")
    parser.add_argument("--context", type=Path, required=True, metavar="FILE", help="ctx, token_prefix, token_suffix")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="as diffusers' save_attn_procs writes it")
    parser.add_argument("--side", type=int, default=512, help="pixels of the squares trained on (default: 512)")
    parser.add_argument("--temperature", type=float, default=0.14, help="that they were trained with (default: 0.14)")
    parser.add_argument("--training-set", default="unknown", metavar="WORDS", help="what they were trained on")
    parser.add_argument(
        "--calibrated-on", metavar="WORDS", help="whose ratings, 0 to 100, the raw score is on (left out: it ranks)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the head's .safetensors")
    _add_model(parser)
    parser.set_defaults(run=run_import)


def _add_export(kinds: Subparsers) -> None:
    parser = command(kinds, "export", "write a head in the authors' layout, which has no gain and offset")
    parser.add_argument("--head", type=Path, required=True, metavar="FILE", help="of train genziqa")
    parser.add_argument("--context", type=Path, required=True, metavar="FILE", help="to write: a pickle of tensors")
    parser.add_argument("--lora", type=Path, required=True, metavar="FILE", help="to write: .safetensors")
    _add_model(parser)
    parser.set_defaults(run=run_export)


def _add_stamp(kinds: Subparsers) -> None:
    parser = command(
        kinds,
        "stamp",
        "write into a head what its model's text encoder and VAE are",
        "For heads of earlier versions, whose files do not say it: another VAE then goes unnoticed in another program.",
    )
    parser.add_argument("--head", type=Path, required=True, metavar="FILE", help="of train genziqa; changed in place")
    _add_model(parser)
    parser.set_defaults(run=run_stamp)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded", metavar="DIR", help="its diffusers folder (default: embedded)")
    parser.add_argument("--device", default="cpu")


def run_import(arguments: argparse.Namespace) -> int:
    """The authors' files → a head."""
    from ..methods.genziqa_authors import import_authors
    from ..methods.genziqa_file import save_genziqa

    head = import_authors(
        _backbone(arguments), arguments.context, arguments.lora, training_set=arguments.training_set,
        calibrated_on=arguments.calibrated_on, side=arguments.side, temperature=arguments.temperature,
    )  # fmt: skip
    save_genziqa(arguments.out, head)
    note(f"wrote {arguments.out}: {' | '.join(head.prompts.texts)}, LoRA of rank {head.lora.rank}")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """A head → the authors' files.

    Raises:
        MismatchedBackbone: the head is of another model.
    """
    from ..heads.check import Wanted, check_head
    from ..methods.genziqa_authors import export_authors
    from ..methods.genziqa_file import load_genziqa

    head, backbone = load_genziqa(arguments.head), _backbone(arguments)
    check_head(head, backbone, "prompts", Wanted(method="genziqa"))
    export_authors(head, backbone, arguments.context, arguments.lora)
    note(f"wrote {arguments.context} and {arguments.lora}")
    return 0


def run_stamp(arguments: argparse.Namespace) -> int:
    """A head with what was not known of its model."""
    from ..methods.genziqa_file import is_half, load_genziqa, save_genziqa
    from ..methods.genziqa_head import stamped

    half = is_half(arguments.head)
    head, new = stamped(load_genziqa(arguments.head), _backbone(arguments))
    if new:
        save_genziqa(arguments.head, head, half=half)
    note(f"{arguments.head}: {', '.join(new) if new else 'nothing'} added")
    return 0


def _backbone(arguments: argparse.Namespace) -> DiffusersBackbone:
    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..hosts.diffusers.loading import load_pipeline

    return DiffusersBackbone(load_pipeline(arguments.model, arguments.device))
