"""``latent-critic benchmark --ablate lgdm``: which part of a method carries its agreement with people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput
from .loaded_model import add_features, feature_options, load_backbone

if TYPE_CHECKING:
    from ..fitting.pictures import Pictures

_OUT = "runs/ablation"


def add_ablation(parser: argparse.ArgumentParser) -> None:
    """The options that only an ablation reads."""
    group = parser.add_argument_group("ablation (with --ablate; the set's training part is split, no test set is used)")
    group.add_argument("--ablate", choices=("lgdm",), help="vary one part at a time")
    group.add_argument("--train", type=int, default=200, metavar="N", help="pictures to fit to (default: 200)")
    group.add_argument("--validation", type=int, default=100, metavar="M", help="pictures to compare on (default: 100)")
    group.add_argument(
        "--cells", nargs="+", metavar="GROUP", help="what to vary (default: all that cost no more passes)"
    )
    group.add_argument("--noise-draws", type=int, default=3, metavar="N", help="with noise in --cells (default: 3)")
    group.add_argument("--out", type=Path, default=Path(_OUT), metavar="DIR", help=f"tables and features ({_OUT})")
    add_features(parser)


def run_ablate(arguments: argparse.Namespace) -> int:
    """Split, extract, fit, compare, write; a stopped run goes on from its features."""
    from tqdm import tqdm

    from ..benchmark.ablate_cells import FREE
    from ..benchmark.ablate_lgdm import run_ablation
    from ..benchmark.ablate_records import Ablation, AblationRequest
    from ..benchmark.ablate_tables import to_markdown, write_ablation
    from ..methods.psis import make_psi
    from .console import note, say

    pictures = _pictures(arguments)
    groups = tuple(arguments.cells) if arguments.cells else FREE
    base = feature_options(arguments)
    request = AblationRequest(
        pictures,
        min(arguments.validation, len(pictures) - 1),
        base,
        groups,
        arguments.noise_draws,
        arguments.out / "features",
        arguments.seed,
        arguments.resamples,
    )
    backbone = load_backbone(arguments)
    told = {"data": pictures.name, "base": _words(arguments), "fingerprint": backbone.fingerprint.to_text()}
    bars: dict[str, tqdm] = {}

    def watch(what: str, done: int, total: int) -> None:
        if what.startswith("forward"):
            return
        if what not in bars:
            for bar in bars.values():
                bar.close()
            note(what)
            bars[what] = tqdm(total=total, desc=what[:40], file=sys.stderr, disable=None, leave=False)
        bars[what].update(done - bars[what].n)

    def keep(found: Ablation) -> None:
        write_ablation(arguments.out, found, told)

    found = run_ablation(request, backbone, lambda name: make_psi(name, backbone), watch, keep)
    say(to_markdown(found, told))
    note(f"wrote {arguments.out}/ablation.json, .csv, .md")
    return 1 if found.failed else 0


def _words(arguments: argparse.Namespace) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_text(value)}"
        for name, value in sorted(feature_options(arguments).to_dict().items())
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "/".join(map(str, value))
    return repr(value) if isinstance(value, str) else str(value)


def _pictures(arguments: argparse.Namespace) -> Pictures:
    """Pictures of the training part, with clusters of like contents as groups."""
    from ..data.loaders import load
    from ..fitting.pictures import Pictures
    from ..train.content_of import contents

    if len(arguments.data) != 1 or arguments.data[0] == "ladders":
        raise BadInput("one rated set with --ablate", ", ".join(arguments.data), "Name one --data and one --root.")
    data = load(arguments.data[0], arguments.root[0])
    parts = {image.split for image in data.images}
    if "train" not in parts and parts != {"all"}:
        raise BadInput("a set with a training part", ", ".join(sorted(parts)), "Choose another set.")
    whole = Pictures.of_rated(data.part("train" if "train" in parts else "all"))
    drawn = whole.at_most(arguments.train + arguments.validation, arguments.seed)
    share = arguments.validation / (arguments.train + arguments.validation)
    groups = contents([path for path in drawn.sources if isinstance(path, Path)], drawn.groups, share, arguments.seed)
    return Pictures(drawn.name, drawn.sources, tuple(map(str, groups)), drawn.ratings)
