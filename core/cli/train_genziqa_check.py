"""``latent-critic train genziqa-check``: a GenzIQA head on the pictures that its training held back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .arguments import Subparsers, command
from .console import note, say, table


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "genziqa-check",
        "measure a GenzIQA head on the pictures that its training held back",
        "How few noise levels rank against the published eight, and the head beside zero-shot on the same pictures.",
    )
    parser.add_argument("--head", type=Path, required=True, metavar="FILE", help="as train genziqa wrote it")
    parser.add_argument(
        "--data", required=True, metavar="LOADER=PATH[:WORST:BEST]", help="the first set it was trained on"
    )
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", dest="folder", help="the training's, or another for contents"
    )
    parser.add_argument("--model", default="embedded", metavar="DIR", help="diffusers folder (default: embedded)")
    parser.add_argument("--most", type=int, metavar="N", help="pictures at most (default: all held back)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON, as beside the shipped head")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and tell two tables."""
    import torch
    from tqdm import tqdm

    from ..files import write_text
    from ..hosts.diffusers.backbone import DiffusersBackbone
    from ..hosts.diffusers.loading import load_pipeline
    from ..methods.genziqa_file import load_genziqa
    from ..train.genziqa_check import check_genziqa
    from .training import rated

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    head, data = load_genziqa(arguments.head), rated(arguments.data)
    backbone = DiffusersBackbone(load_pipeline(arguments.model, arguments.device))
    with tqdm(file=sys.stderr, disable=None, leave=False) as bar:

        def watch(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        found = check_genziqa(head, backbone, data, arguments.folder, watch, most=arguments.most)
    say(table([["noise levels", "SRCC with people (95 %)", "SRCC with the eight (95 %)"], *_levels(found)]))
    say(table([["scorer", "SRCC with people (95 %)"], *_scorers(found)]))
    if arguments.out is not None:
        write_text(arguments.out, json.dumps(found, indent=1) + "\n")
        note(f"wrote {arguments.out}")
    return 0


def _levels(found: dict[str, Any]) -> list[list[str]]:
    return [[row["levels"], _told(row, "srcc"), _told(row, "with_published")] for row in found["levels"]]


def _scorers(found: dict[str, Any]) -> list[list[str]]:
    apart = found["difference"]
    told = f"{apart['difference']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f}), n = {found['n']}"
    rows = [[name, _told(found[name], "srcc")] for name in ("genziqa", "zero_shot")]
    return [*rows, ["difference", told]]


def _told(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} ({row[name + '_low']:.3f} to {row[name + '_high']:.3f})"
