"""Scores as CSV, JSON, JSON lines and PNG text. Used by the nodes and the command line; no torch.

The seven columns are a contract: path, index, score, reason, scorer, scale, direction. JSON and PNG text also hold
``warnings``, a list of texts, where a score has any; CSV has no column for them. Where what made a score may not be
used for everything (weights for academic use only), ``use`` says so: in CSV it is an eighth column of the files that
hold such a score.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import BadInput
from .records import Score, ScoreBatch, ScoreSpec

COLUMNS = ("path", "index", "score", "reason", "scorer", "scale", "direction")
_USE = "use"

#: The keyword under which a PNG file carries its score.
PNG_KEY = "latent_critic"

Row = dict[str, Any]


def row(score: Score, spec: ScoreSpec) -> Row:
    """One score as plain types, with :data:`COLUMNS`.

    ``path`` is the score's attribute ``path`` (or ``name``), ``scale`` is [lowest, highest] or None, and exactly one
    of ``score`` and ``reason`` is None. ``warnings`` is there only when there are any, ``use`` only when the scorer's
    settings, or those of a part of a blend, limit it.
    """
    path = score.attributes.get("path", score.attributes.get("name"))
    warnings = [str(warning) for warning in score.attributes.get("warnings", ())]
    use = _use(spec.settings)
    return {
        "path": None if path is None else printable(str(path)),
        "index": score.index,
        "score": score.value,
        "reason": score.reason,
        "scorer": spec.name,
        "scale": None if spec.scale is None else list(spec.scale),
        "direction": spec.direction,
        **({"warnings": warnings} if warnings else {}),
        **({"use": use} if use else {}),
    }


def _use(settings: Mapping[str, Any]) -> str | None:
    """What a scorer's settings, or those of its parts, say of what it may be used for."""
    own = settings.get("use")
    if own:
        return str(own)
    parts = (_use(part["spec"]["settings"]) for part in settings.get("parts", ()))
    return next((told for told in parts if told), None)


def printable(path: str) -> str:
    """A path that can be written as UTF-8: bytes of a file name that are no text become a replacement character."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def rows(batch: ScoreBatch) -> list[Row]:
    """Every score of a batch as :func:`row`, in the batch's order."""
    return [row(score, batch.spec) for score in batch]


def to_json(scores: ScoreBatch | Iterable[Mapping[str, Any]]) -> str:
    """A JSON list of rows; NaN and infinity cannot occur."""
    return json.dumps(_as_rows(scores), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def to_jsonl(scores: ScoreBatch | Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line, each line ended; no line holds a raw line break."""
    return "".join(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n" for found in _as_rows(scores))


def to_csv(scores: ScoreBatch | Iterable[Mapping[str, Any]]) -> str:
    """A heading and one record a row (RFC 4180 quoting, lines end with a line feed); ``scale`` reads ``low..high``."""
    listed = _as_rows(scores)
    columns = (*COLUMNS, _USE) if any(found.get(_USE) for found in listed) else COLUMNS
    lines = [csv_line(columns)]
    for found in listed:
        scale = found["scale"]
        cells = {**found, "scale": None if scale is None else f"{scale[0]!r}..{scale[1]!r}"}
        lines.append(csv_line([cells.get(name) for name in columns]))
    return "".join(lines)


def csv_line(cells: Iterable[Any]) -> str:
    """One record, ended by a line feed; None is empty, and floats keep every digit."""
    text = io.StringIO()
    # The writer quotes only those line breaks that its own line end has, so it is given both.
    csv.writer(text, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])
    return text.getvalue().removesuffix("\r\n") + "\n"


def from_csv(text: str) -> list[Row]:
    """The inverse of :func:`to_csv`.

    Raises:
        BadInput: another heading.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    heading = next(reader, [])
    if tuple(heading) not in (COLUMNS, (*COLUMNS, _USE)):
        raise BadInput(f"a CSV with the heading {','.join(COLUMNS)}", ",".join(heading), "Use a file of latent-critic.")
    return [_parsed(dict(zip(heading, cells, strict=True))) for cells in reader]


def png_text(batch: ScoreBatch, place: int) -> dict[str, str]:
    """PNG text of one image of a batch: keyword → JSON of its score and of what the score means."""
    score = batch[place]
    payload = {**row(score, batch.spec), "seed": score.seed, "spec": batch.spec.to_dict()}
    return {PNG_KEY: json.dumps(payload, ensure_ascii=False, allow_nan=False, default=str)}


def _as_rows(scores: ScoreBatch | Iterable[Mapping[str, Any]]) -> list[Row]:
    return rows(scores) if isinstance(scores, ScoreBatch) else [dict(found) for found in scores]


def _cell(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _parsed(cells: dict[str, str]) -> Row:
    scale = cells["scale"]
    return {
        "path": cells["path"] or None,
        "index": int(cells["index"]),
        "score": float(cells["score"]) if cells["score"] else None,
        "reason": cells["reason"] or None,
        "scorer": cells["scorer"],
        "scale": [float(end) for end in scale.split("..")] if scale else None,
        "direction": cells["direction"],
        **({_USE: cells[_USE]} if cells.get(_USE) else {}),
    }
