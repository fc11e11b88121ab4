"""What a scoring run leaves behind: files, a table, a contact sheet, the list of failures, the exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contact_sheet import Mark, Titles, best_and_worst, contact_sheet
from ..errors import BadInput, UnreadableFile
from ..export import printable, rows, to_csv, to_jsonl
from ..files import write_text
from ..records import ScoreBatch
from ..selection.policy import numeral
from ..selection.report import meaning
from .arguments import DASH, check_targets
from .console import note, say, say_json
from .sheet_file import check_sheet, save_sheet

_LISTED = 20


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the scores of a run go; ``-`` is standard output, which then carries nothing else."""

    json: str | None = None
    csv: str | None = None
    jsonl: str | None = None
    contact_sheet: str | None = None
    cells: int = 60

    def __post_init__(self) -> None:
        check_targets(self.json, self.csv, self.jsonl)
        if self.contact_sheet is not None:
            check_sheet(Path(self.contact_sheet))
        if self.cells < 1:
            raise BadInput("--sheet-cells of at least 1", str(self.cells), "Raise it.")

    @classmethod
    def of(cls, arguments: Any) -> Outputs:
        """From parsed arguments."""
        return cls(arguments.json, arguments.csv, arguments.jsonl, arguments.contact_sheet, arguments.sheet_cells)

    @property
    def leave_out(self) -> tuple[Path, ...]:
        """What this run itself writes and would otherwise find: an earlier sheet among the pictures."""
        return (Path(self.contact_sheet),) if self.contact_sheet else ()

    @property
    def on_stdout(self) -> bool:
        """Whether standard output belongs to a machine-readable form."""
        return DASH in (self.json, self.csv, self.jsonl)


def write_outputs(batch: ScoreBatch, outputs: Outputs) -> None:
    """Write every form that was asked for, each file whole or not at all; standard output comes last."""
    writers = (
        (outputs.json, lambda target: write_json(rows(batch), target)),
        (outputs.csv, lambda target: write_form(to_csv(batch), target)),
        (outputs.jsonl, lambda target: write_form(to_jsonl(batch), target)),
    )
    for target, write in writers:
        if target != DASH:
            write(target)
    if outputs.contact_sheet:
        write_sheet(batch, Path(outputs.contact_sheet), outputs.cells)
        note(f"wrote {outputs.contact_sheet}")
    for target, write in writers:
        if target == DASH:
            write(target)


def write_json(value: Any, target: str | None) -> None:
    """Write JSON to a file or to standard output (``-``); nothing without a target."""
    if target == DASH:
        say_json(value)
    elif target is not None:
        write_form(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n", target)


def write_form(text: str, target: str | None) -> None:
    """Write text to a file or to standard output (``-``); nothing without a target."""
    if target == DASH:
        say(text.removesuffix("\n"))
    elif target is not None:
        write_text(target, text)
        note(f"wrote {target}")


def write_sheet(batch: ScoreBatch, target: Path, cells: int = 60, side: int = 256) -> None:
    """Draw the ranked contact sheet: at most ``cells`` pictures, the best and the worst, read again as thumbnails."""
    from ..images import thumbnail

    places, cut = best_and_worst(batch.ranking(), cells)
    ranks = {place: rank for rank, place in enumerate(batch.ranking(), 1)}
    pictures, captions, marks = [], [], []
    for place in places:
        score = batch[place]
        path = Path(score.attributes["path"])
        try:
            pictures.append(thumbnail(path, side))
        except UnreadableFile:
            pictures.append(None)
        if score.value is None:
            captions.append(f"no score\n{printable(path.name)}\n{score.reason}")
            marks.append(Mark(crossed=True))
        else:
            captions.append(f"{numeral(score.value)}\n{printable(path.name)}")
            marks.append(Mark(_fraction(batch, place), f"#{ranks[place]}"))
    titles = Titles(f"{len(batch)} pictures, best first", " ".join(filter(None, (meaning(batch).splitlines()[0], cut))))
    sheet = contact_sheet(pictures, captions, cell=side, marks=marks, titles=titles)
    save_sheet(sheet, target)


def _fraction(batch: ScoreBatch, place: int) -> float:
    """Where a score lies from worst to best: on its scale, or among this batch where the scale is open."""
    value, spec = batch[place].value or 0.0, batch.spec
    present = [score.value for score in batch if score.value is not None]
    low, high = spec.scale or (min(present), max(present))
    share = (value - low) / (high - low) if high > low else 1.0
    return share if spec.direction == "higher" else 1.0 - share


def say_scores(batch: ScoreBatch, places: list[int], ranked: bool = False) -> None:
    """One line per picture: its rank when asked for, its score, its path."""
    ranks = {place: rank for rank, place in enumerate(batch.ranking(), 1)}
    for place in places:
        score = batch[place]
        number = "–" if score.value is None else numeral(score.value)
        rank = f"{ranks[place] if score.ok else '–':>5}  " if ranked else ""
        say(f"{rank}{number:>6}  {printable(score.attributes['path'])}")


def conclude(batch: ScoreBatch) -> int:
    """Say what the numbers mean and what they cost, list the pictures that failed; returns the exit code."""
    for line in meaning(batch).splitlines():
        note(line)
    calls = [score.attributes["denoiser_calls"] for score in batch if "denoiser_calls" in score.attributes]
    if calls:  # a score out of a journal cost none and tells none
        note(f"{len(calls)} pictures, {sum(calls)} denoiser calls")
    failed = [score for score in batch if not score.ok]
    if not failed:
        return 0
    note(f"{len(failed)} of {len(batch)} pictures have no score:")
    for score in failed[:_LISTED]:
        note(f"  {printable(score.attributes['path'])}: {score.reason}")
    if len(failed) > _LISTED:
        note(f"  … and {len(failed) - _LISTED} more; --json and --csv list them all.")
    return 1
