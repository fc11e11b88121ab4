"""``latent-critic benchmark``: how well a scorer agrees with people's ratings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .arguments import Subparsers, add_json, add_weights, check_targets, command

if TYPE_CHECKING:
    from ..benchmark.runner import BenchmarkRow
    from ..data.rated import RatedSet

#: The columns of every form, in order. A contract for --json, which adds ``missing``.
COLUMNS = (
    "data",
    "split",
    "scorer",
    "backbone",
    "n",
    "srcc",
    "srcc_low",
    "srcc_high",
    "plcc",
    "krcc",
    "rmse",
    "missing",
)
_LOG = "runs/benchmark.jsonl"


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "benchmark",
        "measure agreement with people's ratings",
        "Prints SRCC with a 95 % bootstrap interval over pictures, PLCC, KRCC, RMSE.",
    )
    parser.add_argument("--data", required=True, metavar="SET", help="biq2021, mmp2k, or csv for any list of yours")
    parser.add_argument("--root", required=True, metavar="DIR", help="the set's folder; with --data csv the CSV file")
    parser.add_argument("--split", choices=("train", "test", "all"), help="official part (default: test; csv: all)")
    parser.add_argument("--images", metavar="DIR", help="csv: what its paths are relative to (default: its folder)")
    parser.add_argument(
        "--scale", nargs=2, type=float, default=(0.0, 100.0), metavar=("WORST", "BEST"), help="csv: ends of the ratings"
    )
    parser.add_argument("--scorer", action="append", metavar="NAME", help="may be repeated (default: judge)")
    add_weights(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda … (default: a GPU when there is one)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images at once; changes no score")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--log", default=_LOG, metavar="FILE", help=f"every run on a test part is logged ({_LOG})")
    add_json(parser, "a JSON list")
    parser.add_argument("--csv", metavar="FILE", help="write CSV (- for standard output)")
    parser.add_argument("--markdown", metavar="FILE", help="write a Markdown table (- for standard output)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, score, measure, write."""
    from tqdm import tqdm

    from ..benchmark.runner import BenchmarkRequest, run_benchmark
    from .scorers import load_scorer

    check_targets(arguments.json, arguments.csv, arguments.markdown, arguments.log)
    if arguments.batch < 1 or arguments.resamples < 1:
        got = f"{arguments.batch}, {arguments.resamples}"
        raise BadInput("--batch and --resamples of at least 1", got, "Raise them.")
    split = arguments.split or ("all" if arguments.data == "csv" else "test")
    data = _load(arguments).part(split)
    scorers = [load_scorer(name, arguments.device, arguments.weights) for name in arguments.scorer or ["judge"]]
    request = BenchmarkRequest(
        data, split, scorers, arguments.resamples, arguments.seed, Path(arguments.log), arguments.batch
    )
    with tqdm(total=len(data.images) * len(scorers), unit="image", file=sys.stderr, disable=None, leave=False) as bar:

        def watch(done: int, _: int) -> None:
            bar.update(done - bar.n)

        rows = run_benchmark(request, watch)
    _write(rows, arguments)
    return 1 if any(row.missing for row in rows) else 0


def _load(arguments: argparse.Namespace) -> RatedSet:
    from ..data.loaders import load, rated_csv

    if arguments.data == "csv":
        return rated_csv(arguments.root, arguments.images, scale=tuple(arguments.scale))
    return load(arguments.data, arguments.root)


def _write(rows: list[BenchmarkRow], arguments: argparse.Namespace) -> None:
    from .console import note, say, table
    from .results import write_form, write_json

    found = [{name: row.to_dict()[name] for name in COLUMNS} for row in rows]
    write_json(found, arguments.json)
    write_form(_as_csv(found), arguments.csv)
    write_form(markdown(found), arguments.markdown)
    if arguments.json is arguments.csv is arguments.markdown is None:
        say(table([list(COLUMNS), *([_text(row[name]) for name in COLUMNS] for row in found)]))
    for row in found:
        if row["missing"]:
            note(f"{row['scorer']}: {row['missing']} pictures got no score and are left out")
        if row["split"] != "train":
            note(f"logged in {arguments.log}")


def _as_csv(rows: list[dict[str, Any]]) -> str:
    from ..export import csv_line

    return "".join([csv_line(COLUMNS), *(csv_line(row.values()) for row in rows)])


def markdown(rows: list[dict[str, Any]]) -> str:
    """A Markdown table for a model card or a README."""
    lines = ["| data | part | scorer | n | SRCC (95 % interval) | PLCC | KRCC |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        interval = f"{row['srcc']:.3f} ({row['srcc_low']:.3f} to {row['srcc_high']:.3f})"
        cells = (row["data"], row["split"], row["scorer"], str(row["n"]), interval)
        lines.append(f"| {' | '.join(cells)} | {row['plcc']:.3f} | {row['krcc']:.3f} |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
