"""``latent-critic train restorer-check``: how much nearer a restorer brings damaged pictures to the originals."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import Subparsers, command
from .console import say, say_json, table

if TYPE_CHECKING:
    from ..benchmark.restoration import Gain
    from ..restoration.contract import Restorer


def add(kinds: Subparsers) -> None:
    """Declare what can be said."""
    parser = command(
        kinds,
        "restorer-check",
        "measure a restorer on damage that it saw and on damage that it did not",
        "PSNR and the judge's psi to the original, damaged and restored; 95 %% intervals by pictures or contents.",
    )
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="the folder that it was trained on")
    parser.add_argument("--restorer", type=Path, metavar="FILE", help="its .safetensors (default: the shipped one)")
    parser.add_argument("--shared", metavar="DIR", help="instead: a diffusion model's folder, or embedded")
    parser.add_argument("--steps", type=int, help="denoiser calls (default: the file's)")
    parser.add_argument("--side", type=int, default=256, help="of the middle crops (default: 256)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N held-back pictures, the first ones")
    parser.add_argument(
        "--by-content",
        action="store_true",
        help="spread --limit evenly over all of them; intervals draw frames of one video together",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Restore held-back pictures, tell."""
    from tqdm import tqdm

    from ..benchmark.restoration import measure_restorer
    from ..data.distortions import KINDS
    from ..perceptual.judge import JudgePsi
    from ..train.ldm.pictures import held_back_paths, some_of

    held = held_back_paths(arguments.pictures, least=arguments.side)
    paths = some_of(list(held), arguments.limit) if arguments.by_content and arguments.limit else [*held]
    paths = paths[: arguments.limit]
    contents = [held[path] for path in paths] if arguments.by_content else None
    restorer, trained_on = _restorer(arguments)
    with tqdm(total=len(paths), file=sys.stderr, disable=None, leave=False) as bar:

        def watch(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        rows = measure_restorer(
            paths, restorer, JudgePsi.load(), contents=contents,
            trained_on=trained_on or KINDS, side=arguments.side, watch=watch,
        )  # fmt: skip
    if arguments.json:
        say_json([row.to_dict() for row in rows])
    else:
        say(_told(rows))
    return 0


def _restorer(arguments: argparse.Namespace) -> tuple[Restorer, list[str]]:
    """The restorer, and the kinds that it was trained on."""
    from dataclasses import replace

    from ..restoration.sr3 import SHIPPED, Sr3Restorer, usual_options
    from ..restoration.weights import load_restorer

    if arguments.shared:
        from ..hosts.diffusers.backbone import DiffusersBackbone
        from ..hosts.diffusers.loading import load_pipeline
        from ..restoration.shared import SharedOptions, SharedRestorer

        backbone = DiffusersBackbone(load_pipeline(arguments.shared, arguments.device))
        return SharedRestorer(backbone, SharedOptions()), []
    net, facts = load_restorer(arguments.restorer or SHIPPED)
    options = usual_options(facts)
    options = options if arguments.steps is None else replace(options, steps=arguments.steps)
    return Sr3Restorer(net.to(arguments.device), options), list(facts.training.get("kinds", ()))


def _told(rows: list[Gain]) -> str:
    head = ["damage", "trained on", "n", "PSNR", "restored", "gain (95 %)", "psi", "restored", "fall (95 %)", "nearer"]
    lines = [head]
    for row in rows:
        psnr, psi = row.psnr_gain, row.psi_gain
        lines.append(
            [
                row.kinds, "yes" if row.seen else "no", str(row.n),
                f"{row.psnr[0]:.2f}", f"{row.psnr[1]:.2f}", f"{psnr[0]:+.2f} [{psnr[1]:+.2f}, {psnr[2]:+.2f}]",
                f"{row.psi[0]:.3f}", f"{row.psi[1]:.3f}", f"{psi[0]:+.3f} [{psi[1]:+.3f}, {psi[2]:+.3f}]",
                f"{100 * row.nearer[0]:.0f} %, {100 * row.nearer[1]:.0f} %",
            ]
        )  # fmt: skip
    return table(lines, right=(2, 3, 4, 6, 7))
