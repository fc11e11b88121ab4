"""``latent-critic reject``: pictures sorted into kept/ and rejected/ by a policy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .arguments import DASH, Subparsers, add_images, add_json, add_scorer, check_targets, command
from .inside_comfyui import where_asked

if TYPE_CHECKING:
    from ..records import ScoreBatch
    from ..selection.policy import Policy, Selection


@dataclass(frozen=True, slots=True)
class RejectRequest:
    """Where sorted pictures go.

    Attributes:
        out: Holds ``kept/``, ``rejected/`` and ``report.csv``.
        policy: What is kept.
        move: Move instead of copy.
        dry_run: Only say what would be done.
        json: Where the report goes as JSON as well; ``-`` is standard output.
    """

    out: Path
    policy: Policy
    move: bool = False
    dry_run: bool = False
    json: str | None = None

    def __post_init__(self) -> None:
        check_targets(self.json)
        if self.out.exists() and not self.out.is_dir():
            raise BadInput("a folder for --out", f"the file {self.out}", "Name another folder.")


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "reject",
        "sort pictures into kept/ and rejected/",
        "Copies, or moves with --move. Never deletes, never overwrites. Threshold, top k and percentile must all be "
        "passed; then the floor brings back the best, and the cap drops the worst. A picture without a score is "
        "rejected.",
    )
    add_images(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="gets kept/, rejected/ and report.csv")
    parser.add_argument("--threshold", type=float, metavar="S", help="keep scores at least this good")
    parser.add_argument("--top-k", type=int, metavar="K", help="keep the best K")
    parser.add_argument("--percentile", type=float, metavar="P", help="75 keeps the best quarter")
    parser.add_argument("--floor", type=int, default=0, metavar="N", help="keep at least N")
    parser.add_argument("--cap", type=int, metavar="N", help="keep at most N")
    parser.add_argument("--move", action="store_true", help="move the files instead of copying them")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    add_json(parser, "the report as a JSON list")
    add_scorer(parser)
    parser.set_defaults(run=where_asked(run))


def run(arguments: argparse.Namespace) -> int:
    """Score, select, sort, report."""
    from ..selection.policy import Policy, select
    from .plan import unfinished
    from .results import conclude
    from .scoring import ScoreRequest, score_files

    rules = (arguments.threshold, arguments.top_k, arguments.percentile, arguments.cap)
    if all(rule is None for rule in rules):
        raise BadInput("at least one rule", "none", "Give --threshold, --top-k, --percentile or --cap.")
    policy = Policy(arguments.threshold, arguments.top_k, arguments.percentile, arguments.floor, arguments.cap)
    request = RejectRequest(Path(arguments.out), policy, arguments.move, arguments.dry_run, arguments.json)
    if (left := unfinished(request.out)) is not None:
        return _go_on(*left, request)
    batch = score_files(ScoreRequest.of(arguments, leave_out=(request.out / "kept", request.out / "rejected")))
    selection = select(batch, policy)
    rows = _plan(batch, selection, request.out)
    _carry_out(rows, request)
    _tell(rows, request)
    return conclude(batch)


def _plan(batch: ScoreBatch, selection: Selection, out: Path) -> list[dict[str, Any]]:
    """One row per picture, best first, each with a destination of its own."""
    from .buckets import destination

    kept, taken, rows = set(selection.kept), set(), []
    for rank, place in enumerate(selection.ranking, 1):
        score = batch[place]
        source = Path(score.attributes["path"])
        bucket = "kept" if place in kept else "rejected"
        # A listed file that does not exist has a reason already, and nothing that could go anywhere.
        target = destination(source, out / bucket, taken) if source.is_file() else None
        if target is not None:
            taken.add(target)
        rows.append(
            {
                "path": str(source),
                "bucket": bucket,
                "destination": None if target is None else str(target),
                "index": score.index,
                "score": score.value,
                "rank": rank if score.ok else None,
                "why": selection.why[place],
            }
        )
    return rows


def _carry_out(rows: list[dict[str, Any]], request: RejectRequest) -> None:
    from .console import note
    from .plan import elsewhere, finish

    # A dry run says the same, and a move leaves nothing that could be sorted twice.
    if not request.move and (copies := elsewhere(rows, request.out)):
        raise BadInput(
            "an --out where no picture was sorted otherwise before",
            f"{len(copies)} that another rule put elsewhere, such as {copies[0]}",
            "Nothing was copied. Name another --out, or clear its kept and rejected.",
        )
    if not request.dry_run:
        note(f"wrote {finish(rows, request.out, request.move)}")


def _go_on(move: bool, rows: list[dict[str, Any]], request: RejectRequest) -> int:
    """Finish a run that was cut short, by its own plan; new pictures and other rules wait for the next run."""
    from .console import note
    from .plan import finish, gone

    note(f"{request.out}: an earlier run was cut short; this finishes it by its own plan and scores nothing.")
    request = replace(request, move=move)
    if not request.dry_run:
        note(f"wrote {finish(rows, request.out, move)}")
    _tell(rows, request)
    note("Run reject again to sort pictures that have come since.")
    lost = gone(rows)
    for path in lost:
        note(f"gone since: {path}")
    return 1 if lost or any(row["score"] is None for row in rows) else 0


def _tell(rows: list[dict[str, Any]], request: RejectRequest) -> None:
    from ..export import printable
    from .console import note, say
    from .results import write_json

    write_json(rows, request.json)
    if request.json != DASH:
        for row in rows:
            say(f"{row['bucket']:8}  {printable(row['path'])}  ({row['why']})")
    kept = sum(row["bucket"] == "kept" for row in rows)
    done = "would be " if request.dry_run else ""
    verb = "moved" if request.move else "copied"
    note(f"{kept} of {len(rows)} kept; {done}{verb} to {request.out}/kept and {request.out}/rejected")
