"""``latent-critic halving``: how early the good seeds can be told apart, and which schedule of looks pays."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .arguments import Subparsers, add_json, check_targets, command

if TYPE_CHECKING:
    from ..benchmark.halving_record import RecordRequest

_DETAIL = """Samples groups of candidates with the embedded model to the end once, scoring the predicted clean picture
on the way with the judge; then plays every schedule of Best Of N through on what was recorded. The schedule is chosen
on one half of the groups and reported on the other. Stopped, it goes on where it was."""


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(subparsers, "halving", "measure which schedule of looks finds the best seeds", _DETAIL)
    parser.add_argument(
        "--record",
        required=True,
        nargs="+",
        metavar="FILE",
        help="JSON lines: the first is made or continued, others read",
    )
    parser.add_argument(
        "--finals",
        nargs="+",
        default=[],
        metavar="FILE",
        help="recordings with other looks: their ends are not sampled again",
    )
    parser.add_argument("--part", default="1/1", metavar="K/N", help="record every N-th group only, from the K-th on")
    parser.add_argument("--groups", type=int, default=200, metavar="N", help="prompts, each with seeds of its own")
    parser.add_argument("--candidates", type=int, default=16, metavar="N", help="seeds per prompt (default: 16)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="sampling steps (default: 10)")
    parser.add_argument("--looks", default="0.2,0.3,0.4,0.6", help="fractions of the steps, apart by commas")
    parser.add_argument(
        "--ahead",
        default="0",
        metavar="N[,N]",
        help="a look tries the rest in so many more steps; one for all, or one each",
    )
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="side of the pictures (default: 128)")
    parser.add_argument("--guidance", type=float, default=3.0, help="1 computes no unconditioned half (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; also draws prompts and halves")
    parser.add_argument("--model", metavar="DIR", help="another model folder of the embedded model's form")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the model (default: fp32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda …")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    add_json(parser, "the whole result")
    parser.add_argument("--csv", metavar="FILE", help="write the curve as CSV (- for standard output)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record what is missing, then simulate and print."""
    from ..benchmark.halving_record import read_recordings
    from ..benchmark.halving_study import Table, study
    from .results import write_form, write_json

    check_targets(arguments.csv, arguments.json, *arguments.record)
    _record(_request(arguments), arguments)
    found = study(Table.of(*read_recordings([Path(name) for name in arguments.record])), seed=arguments.seed)
    rows = curve(found)
    write_json(found, arguments.json)
    write_form(_as_csv(rows), arguments.csv)
    if "-" not in (arguments.json, arguments.csv):
        _say(found, rows)
    return 0


def _request(arguments: argparse.Namespace) -> RecordRequest:
    from ..benchmark.halving_record import RecordRequest

    try:
        fractions = [float(word) for word in arguments.looks.split(",")]
        ahead = tuple(int(word) for word in arguments.ahead.split(","))
    except ValueError as error:
        got = f"{arguments.looks!r} and {arguments.ahead!r}"
        raise BadInput(
            "fractions and whole numbers, apart by commas", got, "Write for example: 0.2,0.5 and 1,2"
        ) from error
    looks = tuple(sorted({round(fraction * arguments.steps) for fraction in fractions}))
    return RecordRequest(
        groups=arguments.groups,
        candidates=arguments.candidates,
        steps=arguments.steps,
        looks=looks,
        size=arguments.size,
        guidance=arguments.guidance,
        seed=arguments.seed,
        precision=arguments.precision,
        ahead=ahead,
    )


def _record(request: RecordRequest, arguments: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from ..benchmark.halving_record import (
        Recording,
        embedded_sampler,
        model_digest,
        read_recording,
        record_group,
    )
    from ..methods.judge import Judge

    part, parts = _part(arguments.part)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = None if arguments.model is None else Path(arguments.model)
    judge = Judge.load(arguments.device)
    first, *others = (Path(name) for name in arguments.record)
    recording = Recording(first, request, judge.spec, model_digest(model))
    known = {*recording.groups, *(number for path in others for number in read_recording(path)[1])}
    missing = [number for number in range(part - 1, request.groups, parts) if number not in known]
    if not missing:
        return
    finals = recording.finals_of([Path(name) for name in arguments.finals])
    sample = embedded_sampler(request, model, arguments.device)
    for number in tqdm(missing, unit="group", file=sys.stderr, disable=None, leave=False):
        recording.add(record_group(request, sample, judge, number, finals.get(number)))


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise BadInput("a part such as 1/2", repr(text), "1/2 and 2/2 together are everything.")
    return int(found[1]), int(found[2])


def curve(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the CSV: what was chosen per budget, every single look, and choosing at random."""
    rows = [("chosen", row) for row in found["chosen"]]
    rows += [("single look", row) for row in found["single_look"]] + [("random", row) for row in found["random"]]
    return [
        {
            "kind": kind,
            "budget": row.get("budget"),
            "cost": row["cost"],
            "looks": " ".join(f"{look:g}" for look in row.get("looks", ())),
            "ahead": " ".join(str(count) for count in row.get("ahead", ())),
            "kept": " ".join(str(count) for count in row.get("kept", (row.get("finished"),))),
            "groups": row.get("groups"),
            "top3": row["top3"],
            "top3_low": row.get("top3_low"),
            "top3_high": row.get("top3_high"),
            "best": row["best"],
            "lost_in_spreads": row.get("lost_in_spreads"),
        }
        for kind, row in rows
    ]


def _as_csv(rows: list[dict[str, Any]]) -> str:
    from ..export import csv_line

    return "".join([csv_line(tuple(rows[0])), *(csv_line(row.values()) for row in rows)])


def _say(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from .console import say, table

    columns = [name for name in rows[0] if name not in ("kind", "groups")]
    chosen = [[_text(row[name]) for name in columns] for row in rows if row["kind"] == "chosen"]
    say(f"{found['groups']} groups of {found['candidates']} seeds, {found['prompts']} prompts, {found['steps']} steps.")
    ranks = ", ".join(f"{row['srcc']:.2f} at {row['look']:g}" for row in found["agreement"])
    say(f"Rank correlation of previews with finished pictures, within a group: {ranks}.")
    reported = found["chosen"][0]["groups"] if found["chosen"] else 0
    say(f"Chosen on one half, reported on the other {reported} groups, with 95 % intervals:")
    say(table([columns, *chosen]))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
