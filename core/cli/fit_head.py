"""``latent-critic fit-head``: make the loaded model a judge of pictures like yours."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .arguments import Subparsers, add_json, check_targets, command
from .inside_comfyui import is_inside, run_inside
from .loaded_model import add_features, add_model, load_features

if TYPE_CHECKING:
    from ..fitting.ladders import UnratedFit
    from ..fitting.pictures import Pictures
    from ..fitting.rated import RatedFit, Watch
    from ..methods.feature_cache import FeatureCache
    from ..methods.hyperfeatures import Hyperfeatures

_DETAIL = (
    "With ratings (--ratings, --data) the head gives 0 to 100 and its cross-validated agreement is told. Without, it "
    "is fitted to your pictures damaged step by step: it ranks, and claims nothing about people. A run that was "
    "stopped goes on from the cache of features."
)


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "fit-head", "fit a head for a diffusion model, with or without ratings", _DETAIL)
    parser.add_argument("inputs", nargs="*", metavar="IMAGES", help="without ratings: good pictures of yours")
    parser.add_argument("--out", required=True, metavar="FILE", help="the head, a .safetensors file")
    source = parser.add_argument_group("ratings")
    source.add_argument("--ratings", metavar="CSV", help="your own: path, rating and maybe content group in each row")
    source.add_argument("--images", metavar="DIR", help="what the paths in --ratings are relative to")
    source.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 100.0), metavar=("WORST", "BEST"), help="ends of your ratings"
    )
    source.add_argument("--data", metavar="SET", help="a public rated set, such as biq2021, with --root")
    source.add_argument("--root", metavar="DIR", help="the set's folder")
    source.add_argument("--split", choices=("train", "all"), help="its part (default: train where the set has one)")
    source.add_argument("--calibrated-on", metavar="WORDS", help="whose ratings these are, shown beside every score")
    source.add_argument("--limit", type=int, metavar="N", help="this many of the pictures, drawn by --seed")
    _add_fit(parser)
    add_model(parser)
    add_features(parser)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="features on disk (default: beside the head)")
    parser.add_argument("--dry-run", action="store_true", help="tell the cost and leave")
    parser.add_argument("--plot", metavar="PNG", help="draw the learning curve (needs the extra plots)")
    add_json(parser, "the report as JSON")
    parser.set_defaults(run=run)


def _add_fit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("head")
    group.add_argument("--head", choices=("ridge", "kernel", "mlp"), default="ridge", help="default: ridge")
    group.add_argument("--link", choices=("logistic", "isotonic"), default="logistic", help="onto 0 to 100")
    group.add_argument("--folds", type=int, default=5, metavar="N", help="of the cross-validation (default: 5)")
    group.add_argument("--no-curve", action="store_true", help="leave the learning curve out")
    group.add_argument("--seed", type=int, default=0, help="of folds, ladders and --limit")
    group.add_argument("--kinds", nargs="+", metavar="KIND", help="without ratings: kinds of damage (default: all)")
    group.add_argument("--per-picture", type=int, metavar="N", help="without ratings: kinds that each picture gets")
    group.add_argument("--severities", nargs="+", type=int, metavar="S", help="without ratings: steps, 1 to 5")
    group.add_argument("--prior", type=float, metavar="W", help="without ratings: weight of the judge, 0 to 1")


def run(arguments: argparse.Namespace) -> int:
    """Tell the cost, compute features, fit, write."""
    check_targets(arguments.json)
    _check_out(Path(arguments.out))
    if arguments.plot is not None:
        from ..benchmark.plots import check_plots

        check_plots()
    pictures = _pictures(arguments)
    if arguments.comfyui is not None and not is_inside():
        return run_inside(arguments.comfyui, arguments.given)
    return _fit(arguments, pictures)


def _check_out(path: Path) -> None:
    """Hours of work must not end at a file that cannot be written."""
    if path.suffix != ".safetensors" or path.is_dir():
        raise BadInput("a head's file that ends in .safetensors", str(path), "Name for example my-model.safetensors.")
    blocked = next((parent for parent in path.absolute().parents if parent.exists() and not parent.is_dir()), None)
    if blocked is not None:
        raise BadInput(f"a folder for {path.name}", f"the file {blocked}", "Name another folder.")


def _pictures(arguments: argparse.Namespace) -> Pictures:
    """What to fit to; all sources give the same form."""
    from ..data.loaders import load, rated_csv
    from ..fitting.pictures import Pictures
    from ..image_files import find_images

    sources = [name for name in ("inputs", "ratings", "data") if getattr(arguments, name)]
    if len(sources) != 1:
        got = ", ".join(sources) or "none"
        raise BadInput("one of pictures, --ratings and --data", got, "Name pictures only to fit without ratings.")
    if arguments.ratings:
        data = rated_csv(arguments.ratings, arguments.images, scale=tuple(arguments.scale))
        found = Pictures.of_rated(data)
    elif arguments.data:
        if not arguments.root:
            raise BadInput("--root with --data", "none", "Name the set's folder.")
        data = load(arguments.data, arguments.root)
        parts = {image.split for image in data.images}
        found = Pictures.of_rated(data.part(arguments.split or ("train" if "train" in parts else "all")))
    else:
        paths = find_images(arguments.inputs)
        found = Pictures(paths[0].parent.name or "pictures", tuple(paths), tuple(str(path) for path in paths))
    return found.at_most(arguments.limit, arguments.seed)


def _fit(arguments: argparse.Namespace, pictures: Pictures) -> int:
    from ..heads.head_file import save_head
    from ..methods.feature_cache import FeatureCache
    from .console import note

    features = load_features(arguments)
    ladders = None if pictures.ratings is not None else _ladders(arguments)
    _tell_cost(features, pictures, 1 if ladders is None else ladders.per_ladders())
    if arguments.dry_run:
        return 0
    out = Path(arguments.out)
    cache = FeatureCache.of(arguments.cache or out.with_suffix(".features"), features)
    with _progress() as watch:
        fit = (
            _rated(arguments, features, pictures, cache, watch)
            if ladders is None
            else _unrated(ladders, features, pictures, cache, watch)
        )
    save_head(out, fit.head)
    for place, reason in fit.left_out.items():
        note(f"left out: {pictures.sources[place]}: {reason}")
    _report(arguments, fit, out)
    return 1 if fit.left_out else 0


def _tell_cost(features: Hyperfeatures, pictures: Pictures, each: int) -> None:
    from ..fitting.cost import cost_of, sizes_of
    from .console import note

    sizes = [size for size in sizes_of(pictures.sources) for _ in range(each)]
    forms = f" ({each} forms of each of {len(pictures)} pictures)" if each > 1 else ""
    note(f"cost: {cost_of(features, sizes).to_text()}{forms}")


def _ladders(arguments: argparse.Namespace) -> Any:
    from ..fitting.ladder_steps import LadderOptions

    asked = {
        "kinds": None if arguments.kinds is None else tuple(arguments.kinds),
        "severities": None if arguments.severities is None else tuple(arguments.severities),
        "per_picture": arguments.per_picture,
        "prior": arguments.prior,
        "seed": arguments.seed,
    }
    found = {name: value for name, value in asked.items() if value is not None}
    if arguments.kinds is not None and arguments.per_picture is None:
        found["per_picture"] = min(4, len(arguments.kinds))
    return LadderOptions(**found)


def _rated(
    arguments: argparse.Namespace, features: Hyperfeatures, pictures: Pictures, cache: FeatureCache, watch: Watch
) -> RatedFit:
    from ..fitting.rated import fit_rated
    from ..heads.fit import FitOptions

    words = arguments.calibrated_on or ("your ratings" if arguments.ratings else f"photographs of {pictures.name}")
    options = FitOptions(arguments.head, arguments.link, folds=arguments.folds, seed=arguments.seed)
    return fit_rated(
        features,
        pictures,
        calibrated_on=words,
        options=options,
        cache=cache,
        curve=not arguments.no_curve,
        watch=watch,
    )


def _unrated(
    ladders: Any, features: Hyperfeatures, pictures: Pictures, cache: FeatureCache, watch: Watch
) -> UnratedFit:
    from ..fitting.ladders import fit_unrated
    from ..methods.judge import Judge

    judge = Judge.load() if ladders.prior else None
    return fit_unrated(features, pictures, options=ladders, judge=judge, cache=cache, watch=watch)


def _report(arguments: argparse.Namespace, fit: RatedFit | UnratedFit, out: Path) -> None:
    from ..fitting.report import to_text
    from .console import say
    from .fit_plot import plot_curve
    from .results import write_json

    write_json({"file": str(out), **fit.to_dict()}, arguments.json)
    if arguments.plot is not None:
        plot_curve(fit, Path(arguments.plot))
    if arguments.json is None:
        say(to_text(fit))
        say(f"wrote {out}")


@contextmanager
def _progress() -> Iterator[Watch]:
    """A bar per kind of work, and a line with the time left after the first pictures."""
    from tqdm import tqdm

    from ..fitting.cost import remaining
    from .console import note

    bars: dict[str, Any] = {}
    start = time.monotonic()
    told: list[str] = []

    def watch(what: str, done: int, total: int) -> None:
        if what == "forward":
            return
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, file=sys.stderr, disable=None, leave=False)
        bars[what].update(done - bars[what].n)
        if what == "features" and done < total and not told:
            told.append(what)
            note(f"after {done} of {total} pictures: {remaining(time.monotonic() - start, done, total)} left")

    try:
        yield watch
    finally:
        for bar in bars.values():
            bar.close()
