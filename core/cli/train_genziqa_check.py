"""``latent-critic train genziqa-check``: a GenzIQA head on the pictures that its training held back."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import Subparsers, command
from .console import note, say, table

if TYPE_CHECKING:
    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..train.genziqa_check import Watch


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "genziqa-check",
        "measure a GenzIQA head on the pictures that its training held back",
        "How few noise levels rank against the published eight, and the head beside zero-shot on the same pictures.",
    )
    parser.add_argument("--head", type=Path, required=True, metavar="FILE", help="as train genziqa wrote it")
    add_place(parser)
    parser.add_argument("--most", type=int, metavar="N", help="pictures at most (default: all held back)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, as beside the shipped head")
    parser.set_defaults(run=run)


def add_place(parser: argparse.ArgumentParser) -> None:
    """The set, the training's folder, the model and where it runs."""
    parser.add_argument(
        "--data", required=True, metavar="LOADER=PATH[:WORST:BEST]", help="the first set it was trained on"
    )
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", dest="folder", help="the training's, or another for contents"
    )
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and tell two tables."""
    from ..files import write_text
    from ..methods.genziqa_file import load_genziqa
    from ..train.genziqa_check import check_genziqa
    from .training import rated

    head, data = load_genziqa(arguments.head), rated(arguments.data)
    backbone = model_of(arguments)
    with bar() as watch:
        found = check_genziqa(head, backbone, data, arguments.folder, watch, most=arguments.most)
    say(table([["noise levels", "SRCC with people (95 %)", "SRCC with the eight (95 %)"], *_levels(found)]))
    say(table([["scorer", "SRCC with people (95 %)"], *_scorers(found)]))
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(found, indent=1) + "\n")
        note(f"wrote {arguments.out}")
    return 0


def model_of(arguments: argparse.Namespace) -> DiffusersBackbone:
    """The model folder, on the device and threads that were asked for."""
    import torch

    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..hosts.diffusers.loading import load_pipeline

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return DiffusersBackbone(load_pipeline(arguments.model, arguments.device))


@contextmanager
def bar() -> Iterator[Watch]:
    """A bar over what is measured, as a watch."""
    from tqdm import tqdm

    with tqdm(file=sys.stderr, disable=None, leave=False) as shown:

        def watch(what: str, done: int, total: int) -> None:
            shown.set_description(what, refresh=False)
            shown.total, shown.n = total, done
            shown.refresh()

        yield watch


def _levels(found: dict[str, Any]) -> list[list[str]]:
    return [[row["levels"], told_range(row, "srcc"), told_range(row, "with_published")] for row in found["levels"]]


def _scorers(found: dict[str, Any]) -> list[list[str]]:
    apart = found["difference"]
    told = f"{apart['difference']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f}), n = {found['n']}"
    rows = [[name, told_range(found[name], "srcc")] for name in ("genziqa", "zero_shot")]
    return [*rows, ["difference", told]]


def told_range(row: dict[str, Any], name: str = "srcc") -> str:
    """A figure with its interval."""
    return f"{row[name]:.3f} ({row[name + '_low']:.3f} to {row[name + '_high']:.3f})"
