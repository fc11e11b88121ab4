"""``latent-critic demo``: sample pictures, damaged step by step, scored and ranked on one sheet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput
from .arguments import Subparsers, command

if TYPE_CHECKING:
    from ..records import ScoreBatch
    from .ladders import Step

#: Damage that people meet: out of focus, shaken, noisy, over-compressed, enlarged, over-exposed.
KINDS = ("gaussian_blur", "motion_blur", "white_noise", "jpeg", "downscale", "overexpose")

_CELL = (208, 150)


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """Where the demo writes, what damage it shows, where it runs."""

    out: Path
    kinds: tuple[str, ...] = KINDS
    scorer: str = "judge"
    device: str = "auto"
    seed: int = 0


def add(subparsers: Subparsers) -> None:
    """Declare the subcommand."""
    parser = command(
        subparsers,
        "demo",
        "score sample pictures with growing damage; writes a contact sheet",
        "Needs no pictures of yours and no download. Writes DIR/contact_sheet.png, DIR/scores.csv and DIR/pictures/.",
    )
    parser.add_argument("--out", default="latent-critic-demo", metavar="DIR", help="default: latent-critic-demo")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND", help=f"default: {' '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="draws the noise (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda … (default: a GPU when there is one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make, score, draw, tell."""
    from .console import note
    from .ladders import write_ladders
    from .scoring import ScoreRequest, score_files
    from .sheet_file import check_sheet

    request = DemoRequest(Path(arguments.out), _kinds(arguments.kinds), device=arguments.device, seed=arguments.seed)
    check_sheet(request.out / "contact_sheet.png")
    note(f"writing sample pictures with damage of {len(request.kinds)} kinds to {request.out / 'pictures'}")
    steps = write_ladders(request.out / "pictures", request.kinds, seed=request.seed)
    batch = score_files(
        ScoreRequest(tuple(str(step.path) for step in steps), scorer=request.scorer, device=request.device)
    )
    _write_csv(steps, batch, request.out / "scores.csv")
    _write_sheet(steps, batch, request)
    _tell(steps, batch, request)
    return 0 if all(score.ok for score in batch) else 1


def _kinds(given: Sequence[str]) -> tuple[str, ...]:
    """Each kind once, all of them known, before the first picture is written."""
    from ..data.distortions import KINDS as KNOWN

    for kind in given:
        if kind not in KNOWN:
            raise BadInput(f"a kind of damage out of {', '.join(KNOWN)}", repr(kind), "Use these names for --kinds.")
    return tuple(dict.fromkeys(given))


def _write_csv(steps: Sequence[Step], batch: ScoreBatch, target: Path) -> None:
    from ..export import csv_line, printable
    from ..files import write_text

    lines = [("path", "picture", "distortion", "severity", "score")]
    lines += [
        (str(s.path), s.picture, s.distortion, s.severity, score.value) for s, score in zip(steps, batch, strict=True)
    ]
    write_text(target, "".join(printable(csv_line(line)) for line in lines))


def _write_sheet(steps: Sequence[Step], batch: ScoreBatch, request: DemoRequest) -> None:
    """One row per kind of damage, the pictures in turn; columns are the severity."""
    from PIL import ImageOps

    from ..contact_sheet import Mark, Titles, contact_sheet
    from ..images import thumbnail
    from ..selection.policy import numeral
    from .ladders import count_falls
    from .sheet_file import save_sheet

    places = {(step.picture, step.distortion, step.severity): place for place, step in enumerate(steps)}
    pictures = list(dict.fromkeys(step.picture for step in steps))
    shown, titles = [], []
    for row, kind in enumerate(request.kinds):
        picture = pictures[row % len(pictures)]
        titles.append(f"{kind.replace('_', ' ')} · {picture}")
        shown += [places[picture, kind if severity else "none", severity] for severity in range(6)]
    order = [place for place in batch.ranking() if place in set(shown)]
    ranks = {place: rank for rank, place in enumerate(order, 1)}
    low, high = batch.spec.scale or (0.0, 100.0)
    fell, visible = count_falls(steps, batch.values())
    captions, marks = [], []
    for place in shown:
        value = batch[place].value
        captions.append("no score" if value is None else numeral(value))
        marks.append(Mark(crossed=True) if value is None else Mark((value - low) / (high - low), f"#{ranks[place]}"))
    sheet = contact_sheet(
        # Cut to one shape, so that the rows lie close.
        [ImageOps.fit(thumbnail(steps[place].path, 2 * _CELL[0]), _CELL, centering=(0.5, 0.15)) for place in shown],
        captions,
        columns=6,
        cell=_CELL[0],
        cell_height=_CELL[1],
        marks=marks,
        titles=Titles(
            "Latent Critic: sample pictures with growing damage",
            f"Scorer: {batch.spec.name}, {low:g} to {high:g}, higher is better. "
            f"# is the rank among these {len(order)}. Over all {len(steps)} pictures of the demo the score "
            f"fell in {fell} of {visible} visible steps of damage.",
            ("untouched", "damage 1", "damage 2", "damage 3", "damage 4", "damage 5"),
            titles,
        ),
    )
    save_sheet(sheet, request.out / "contact_sheet.png")


def _tell(steps: Sequence[Step], batch: ScoreBatch, request: DemoRequest) -> None:
    from ..selection.policy import numeral
    from .console import say, table
    from .ladders import VISIBLE, count_falls

    ranking = batch.ranking()
    cells = [["rank", "score", "picture", "damage", "severity"]]
    for rank, place in enumerate(ranking, 1):
        if 8 < rank <= len(ranking) - 4:
            if rank == 9:
                cells.append(["...", "", "", "", ""])
            continue
        step, value = steps[place], batch[place].value
        number = "–" if value is None else numeral(value)
        cells.append([str(rank), number, step.picture, step.distortion.replace("_", " "), str(step.severity)])
    say(table(cells, right=[0, 1, 4]))
    fell, visible = count_falls(steps, batch.values())
    say(
        f"\nThe score fell in {fell} of {visible} visible steps of damage "
        f"(visible: the structural similarity to the untouched picture falls by {VISIBLE:g} or more)."
    )
    say(f"\n  {request.out / 'contact_sheet.png'}  look at this one first")
    say(f"  {request.out / 'scores.csv'}")
    say("\nNow your own pictures:")
    say("  latent-critic rank FOLDER --contact-sheet sheet.png")
    say("  latent-critic reject FOLDER --percentile 75 --out sorted/")
