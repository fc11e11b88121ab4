"""A batch of scores and what was done with it, as text and as table rows. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records import ScoreBatch
from .policy import Selection, numeral

COLUMNS = ("rank", "index", "name", "score", "history", "seed", "kept", "reason")


def rows(batch: ScoreBatch, selection: Selection | None = None) -> list[dict[str, Any]]:
    """One row per image from best to worst: :data:`COLUMNS`, and ``warnings`` (a list of texts).

    ``rank`` and ``score`` are None without a score.

    ``index`` is the image's place in the batch that was first scored, ``history`` the percentile among one's own
    earlier scores (None where these are few). ``kept`` is None without a selection.
    """
    ranking = selection.ranking if selection else batch.ranking()
    kept = set(selection.kept) if selection else set()
    found = []
    for rank, place in enumerate(ranking, 1):
        score = batch[place]
        found.append(
            {
                "rank": rank if score.ok else None,
                "index": score.index,
                "name": score.attributes.get("name"),
                "score": score.value,
                "history": score.attributes.get("history_percentile"),
                "seed": score.seed,
                "kept": place in kept if selection else None,
                "reason": selection.why[place] if selection else (score.reason or ""),
                "warnings": list(score.attributes.get("warnings", ())),
            }
        )
    return found


def table(batch: ScoreBatch, selection: Selection | None = None) -> str:
    """The rows as aligned plain text; columns that are empty throughout are left out."""
    found = rows(batch, selection)
    columns = [name for name in COLUMNS if any(row[name] not in (None, "") for row in found) or name == "score"]
    return aligned([list(columns), *([_cell(name, row[name]) for name in columns] for row in found)])


def cell(value: Any) -> str:
    """A value of a row as text: "-" for None, "yes" and "no", numbers of scores as everywhere."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return numeral(value) if isinstance(value, float) else str(value)


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells as plain text with straight columns."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def meaning(batch: ScoreBatch) -> str:
    """What these numbers are, in one or two lines: the scorer, its direction and scale, calibration, blind spots."""
    spec = batch.spec
    scale = "open scale" if spec.scale is None else f"{spec.scale[0]:g} to {spec.scale[1]:g}"
    trust = (
        f"calibrated on {spec.calibrated_on}"
        if spec.calibrated
        else "uncalibrated: ranks images, but a single value means nothing"
    )
    line = f"Scorer: {spec.name} ({scale}, {spec.direction} is better, {trust})."
    blind = spec.blind_to.rstrip(". ")
    return f"{line}\nIt does not see: {blind}." if blind else line


def report(batch: ScoreBatch, selection: Selection | None = None, hint: str = "") -> str:
    """The whole report: summary, meaning, warnings, table."""
    scored = sum(score.ok for score in batch)
    head = f"{scored} of {len(batch)} images scored"
    if selection is not None:
        head += f", {len(selection.kept)} kept, {len(selection.rejected)} rejected"
    above = [f"{head}.", *([hint] if hint else []), meaning(batch), *_standing(batch), *_warnings(batch)]
    return "\n".join([*above, "", table(batch, selection)])


def _standing(batch: ScoreBatch) -> list[str]:
    """What the column ``history`` is, where there is one."""
    counts = [score.attributes["history_count"] for score in batch if "history_count" in score.attributes]
    if not counts:
        return []
    return [f"history: the percentile among your {max(counts)} earlier scores by this scorer, settings and model."]


def _warnings(batch: ScoreBatch, most: int = 8) -> list[str]:
    """Each warning once, with the images that it is about."""
    about: dict[str, list[int]] = {}
    for score in batch:
        for warning in score.attributes.get("warnings", ()):
            about.setdefault(warning, []).append(score.index)
    return [f"Warning ({_images(indices, len(batch), most)}): {warning}" for warning, indices in about.items()]


def _images(indices: Sequence[int], of: int, most: int) -> str:
    """Which images, in words: all of several, or the first few by index."""
    if 1 < of == len(indices):
        return "all images"
    more = f" and {len(indices) - most} more" if len(indices) > most else ""
    return f"image{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices[:most]))}{more}"


def why_empty(batch: ScoreBatch, selection: Selection, side: str, most: int = 4) -> str | None:
    """Why a side of a selection, ``kept`` or ``rejected``, holds no image: one line for the blocked branch.

    ``None`` where nothing was rejected: nothing is wrong then, and nobody need be told.
    """
    if side == "rejected":
        return None
    reasons = [f"image {batch[place].index}: {selection.why[place]}" for place in selection.ranking[:most]]
    more = f"; and {len(batch) - most} more" if len(batch) > most else ""
    remedy = "Lower the bar, or set the floor to 1 to keep the best."
    return f"No image of {len(batch)} was kept. {'; '.join(reasons)}{more}. {remedy}"


def _cell(name: str, value: Any) -> str:
    return f"{value:.0f} %" if name == "history" and value is not None else cell(value)
