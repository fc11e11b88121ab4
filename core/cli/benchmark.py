"""``latent-critic benchmark``: how well scorers agree with people's ratings, and whether they follow known damage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.rated import SPLITS
from ..errors import BadInput
from .ablate import add_ablation, run_ablate
from .arguments import Subparsers, add_json, add_weights, check_targets, command
from .loaded_model import add_model_name

if TYPE_CHECKING:
    from ..benchmark.ladders import LadderRow
    from ..benchmark.runner import BenchmarkReport
    from ..benchmark.scoring import Contestant
    from ..data.rated import RatedSet

_LOG, _STORE = "runs/benchmark.jsonl", "runs/benchmark"
_DRAWS = 4


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "benchmark",
        "measure agreement with people's ratings",
        "SRCC, PLCC and KRCC with 95 % bootstrap intervals over contents, RMSE, and which scorer is better on the same "
        "pictures; on held-out ladders, how often the score falls with damage.",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", required=True, action="append", metavar="SET", help=f"{_sets()}; may be repeated, with --root"
    )
    data.add_argument(
        "--root", required=True, action="append", metavar="DIR", help="the set's folder; for csv the file, for ladders "
        "a folder of good pictures"
    )  # fmt: skip
    data.add_argument("--split", choices=SPLITS, help="official part (default: test where there is one, else all)")
    data.add_argument(
        "--limit", type=int, metavar="N", help="N pictures of the part, drawn by --seed; told in all forms"
    )
    data.add_argument("--images", metavar="DIR", help="csv: what its paths are relative to (default: its folder)")
    data.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 100.0), metavar=("WORST", "BEST"), help="csv: ends of the ratings"
    )
    _add_scorers(parser)
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of --limit")
    parser.add_argument("--log", default=_LOG, metavar="FILE", help=f"every run on a test part is logged ({_LOG})")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=_STORE,
        metavar="DIR",
        help=f"keep each picture's score (no DIR: {_STORE}) and take from there what was scored: a killed run goes on",
    )
    add_json(parser, "a JSON list")
    parser.add_argument("--csv", metavar="FILE", help="write CSV (- for standard output)")
    parser.add_argument("--markdown", metavar="FILE", help="write Markdown tables (- for standard output)")
    parser.add_argument("--plots", metavar="DIR", help="write PNGs: scatter with the fitted curve, bars by kind")
    add_ablation(parser)
    parser.set_defaults(run=run)


def _add_scorers(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("scorers")
    who.add_argument("--scorer", action="append", metavar="NAME", help="may be repeated (default: judge)")
    who.add_argument("--all", action="store_true", help="every scorer that can run here, with spread and costs")
    add_model_name(who)
    add_weights(who)  # type: ignore[arg-type]
    who.add_argument("--comfyui", type=Path, metavar="DIR", help="a ComfyUI folder, to run the model inside it")
    who.add_argument("--checkpoint", metavar="FILE", help="with --comfyui: a checkpoint, or a folder of train ldm")
    who.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="FILE",
        help="a head for that model; may be repeated (default: those that ship, for the embedded model)",
    )
    who.add_argument("--restorer", metavar="FILE", help="of a diff_v2_iqa head")
    who.add_argument("--device", default="auto", help="cpu, cuda … (default: a GPU when there is one)")
    who.add_argument("--batch", type=int, default=16, metavar="N", help="images at once; changes no score")
    who.add_argument(
        "--draws", type=int, metavar="N", help=f"noise draws behind the spread of a score (default: 0; --all: {_DRAWS})"
    )


def _sets() -> str:
    from ..data.loaders import LOADERS

    return ", ".join([*(name for name in LOADERS if name != "csv"), "csv for any list of yours, ladders"])


@dataclass
class _Found:
    reports: list[BenchmarkReport] = field(default_factory=list)
    ladders: list[LadderRow] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Every row for JSON; p values adjusted over all rated sets together."""
        from ..benchmark.runner import adjusted
        from .benchmark_output import ordered

        rated = adjusted([row for report in self.reports for row in report.rows])
        return [ordered(row.to_dict()) for row in (*rated, *self.ladders)]


def run(arguments: argparse.Namespace) -> int:
    """Load, score, measure, write."""
    from .inside_comfyui import is_inside, run_inside

    _check(arguments)
    if arguments.comfyui is not None and not is_inside():
        return run_inside(arguments.comfyui, arguments.given)
    if arguments.ablate:
        return run_ablate(arguments)
    sets = [(name, root) for name, root in zip(arguments.data, arguments.root, strict=True)]
    loaded = [(name, None if name == "ladders" else _load(arguments, name, root), root) for name, root in sets]
    contestants, unmeasured = _contestants(arguments)
    found = _Found()
    for name, data, root in loaded:
        _measure(arguments, name, data, root, contestants, found)
    return _write(arguments, found, unmeasured)


def _check(arguments: argparse.Namespace) -> None:
    check_targets(arguments.json, arguments.csv, arguments.markdown, arguments.log)
    if arguments.batch < 1 or arguments.resamples < 1:
        got = f"{arguments.batch}, {arguments.resamples}"
        raise BadInput("--batch and --resamples of at least 1", got, "Raise them.")
    if len(arguments.data) != len(arguments.root):
        got = f"{len(arguments.data)} --data, {len(arguments.root)} --root"
        raise BadInput("one --root for each --data", got, "Name both as often, in the same order.")
    if arguments.draws is not None and (arguments.draws < 0 or arguments.draws == 1):
        raise BadInput("--draws 0, or at least 2", str(arguments.draws), "4 is what --all takes.")
    if arguments.comfyui is None and arguments.checkpoint:
        raise BadInput("--comfyui with --checkpoint", "none", "Name the ComfyUI folder that loads it, or use --model.")
    if arguments.plots:
        from ..benchmark.plots import check_plots

        check_plots()


def _load(arguments: argparse.Namespace, name: str, root: str) -> RatedSet:
    from ..data.loaders import load, rated_csv

    if name == "csv":
        return rated_csv(root, arguments.images, scale=tuple(arguments.scale))
    return load(name, root)


def _contestants(arguments: argparse.Namespace) -> tuple[list[Contestant], list[str]]:
    """Whom to measure, and who of ``--all`` cannot be measured, and why."""
    from .contestants import ContestantRequest, contestants

    return contestants(
        ContestantRequest(
            names=tuple(arguments.scorer or ()),
            every=arguments.all,
            device=arguments.device,
            weights=arguments.weights,
            policy=arguments.policy,
            model=arguments.model,
            checkpoint=arguments.checkpoint,
            heads=tuple(arguments.head),
            restorer=arguments.restorer,
        )
    )


def _measure(
    arguments: argparse.Namespace,
    name: str,
    data: RatedSet | None,
    root: str,
    contestants: list[Contestant],
    found: _Found,
) -> None:
    from tqdm import tqdm

    from ..benchmark.ladders import run_ladders
    from ..benchmark.runner import BenchmarkRequest, benchmark
    from ..data.rated import RatedSet as Rated
    from .score_store import JournalFolder

    split = arguments.split or (data.reported if data else "all")
    part = data.part(split) if data else Rated(name, ())
    part = part.sample(arguments.limit, arguments.seed) if data and arguments.limit is not None else part
    stores = JournalFolder(Path(arguments.resume), f"{part.name} {split}") if arguments.resume else None
    draws = (_DRAWS if arguments.all else 0) if arguments.draws is None else arguments.draws
    request = BenchmarkRequest(
        part,
        split,
        contestants,
        arguments.resamples,
        arguments.seed,
        Path(arguments.log),
        arguments.batch,
        stores,
        draws,
    )
    with tqdm(unit="image", file=sys.stderr, disable=None, leave=False, desc=part.name) as bar:

        def watch(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        if data:
            found.reports.append(benchmark(request, watch))
        else:
            found.ladders += run_ladders(_pictures(root), request, watch)


def _pictures(root: str) -> list[Path]:
    from ..image_files import EXTENSIONS

    folder = Path(root).expanduser()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not found:
        raise BadInput("a folder of pictures for ladders", f"{folder} without any", "Name a folder of good pictures.")
    return found


def _write(arguments: argparse.Namespace, found: _Found, unmeasured: list[str]) -> int:
    from .benchmark_output import as_csv, as_markdown, as_table
    from .console import note, say
    from .results import write_form, write_json

    rows = found.rows()
    forms: list[tuple[str | None, Callable[[], None]]] = [
        (arguments.json, lambda: write_json(rows, arguments.json)),
        (arguments.csv, lambda: write_form(as_csv(rows), arguments.csv)),
        (arguments.markdown, lambda: write_form(as_markdown(rows, unmeasured), arguments.markdown)),
    ]
    for target, write in sorted(forms, key=lambda form: form[0] == "-"):
        if target is not None:
            write()
    if all(target is None for target, _ in forms):
        say(as_table(rows))
    if arguments.plots:
        from ..benchmark.plots import write_plots

        for path in write_plots(Path(arguments.plots), found.reports, found.ladders):
            note(f"wrote {path}")
    for words in unmeasured:
        note(f"not measured: {words}")
    for row in rows:
        if row["missing"]:
            note(f"{row['scorer']}: {row['missing']} pictures got no score and are left out")
        if row["split"] != "train":
            note(f"logged in {arguments.log}")
    return 1 if any(row["missing"] for row in rows) else 0
