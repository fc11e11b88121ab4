"""What is asked of the history's tables: adding, counting, forgetting. Each function works inside one transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..records import Score, ScoreSpec

_COUNT = "SELECT count(*) FROM scores WHERE spec = ? AND value"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a score stands among the earlier ones of the same scorer, settings and model.

    Attributes:
        percentile: Share of the earlier scores that are worse, in per cent; equal ones count half.
        among: How many earlier scores there are, ≥ 1.
    """

    percentile: float
    among: int


def count_of(db: sqlite3.Connection, spec: ScoreSpec) -> int:
    """How many scores with a value there are of these settings."""
    return db.execute(f"{_COUNT} IS NOT NULL", [spec.digest]).fetchone()[0]


def add(db: sqlite3.Connection, spec: ScoreSpec, entries: Sequence[tuple[Any, ...]]) -> None:
    """Add entries (time, score, prompt, image, key); one whose key is there already changes nothing."""
    digest, text = spec.digest, json.dumps(spec.to_dict(), default=str)
    db.execute("INSERT OR IGNORE INTO specs VALUES (?, ?, ?, ?)", (digest, spec.name, spec.backbone, text))
    db.executemany(
        "INSERT OR IGNORE INTO scores (at, spec, value, reason, seed, prompt, image, key)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        # Seeds go up to 2**64 − 1, which SQLite's integers do not hold.
        [
            (
                at,
                digest,
                score.value,
                _clean(score.reason),
                None if score.seed is None else str(score.seed),
                prompt,
                image,
                key,
            )
            for at, score, prompt, image, key in entries
        ],
    )


def standing(db: sqlite3.Connection, spec: ScoreSpec, score: Score, key: str | None, among: int) -> Standing | None:
    """Where a score stands among ``among`` others; ``None`` without a value or without others."""
    if score.value is None:
        return None
    worse = "<" if spec.direction == "higher" else ">"
    below = db.execute(f"{_COUNT} {worse} ?", [spec.digest, score.value]).fetchone()[0]
    equal = db.execute(f"{_COUNT} = ?", [spec.digest, score.value]).fetchone()[0]
    # The image's own earlier score is not one of the others.
    own = db.execute("SELECT value FROM scores WHERE key = ?", [key]).fetchone()
    if own is not None and own[0] is not None:
        goodness, mine = spec.goodness(own[0]), spec.goodness(score.value)
        among, below, equal = among - 1, below - (goodness < mine), equal - (own[0] == score.value)
    return Standing(100 * (below + 0.5 * equal) / among, among) if among else None


def median(db: sqlite3.Connection, digest: str, where: str, values: Sequence[Any]) -> float | None:
    """The median value of one kind of score among the chosen ones."""
    inside = f" FROM scores JOIN specs ON digest = scores.spec{where}{' AND' if where else ' WHERE'} value IS NOT NULL"
    chosen = f"{inside} AND scores.spec = ?"
    count = db.execute(f"SELECT count(*){chosen}", [*values, digest]).fetchone()[0]
    ordered = f"SELECT value{chosen} ORDER BY value LIMIT ? OFFSET ?"
    middle = db.execute(ordered, [*values, digest, 2 - count % 2, max(0, (count - 1) // 2)]).fetchall()
    return sum(value for (value,) in middle) / len(middle) if middle else None


def prune_to(db: sqlite3.Connection, cap: int) -> None:
    """Forget the oldest scores beyond the cap."""
    first, last = db.execute("SELECT min(id), max(id) FROM scores").fetchone()
    # Counting reads the whole table; the span of the numbers, which is at least the count, does not.
    if first is None or last - first < cap:
        return
    count = db.execute("SELECT count(*) FROM scores").fetchone()[0]
    if count <= cap:
        return
    # Previews of half-finished images come in great numbers: they go before any finished image's score. A little more
    # than needed goes, so that this is seldom done.
    oldest = (
        "SELECT scores.id FROM scores JOIN specs ON digest = scores.spec"
        " ORDER BY json_extract(specs.spec, '$.settings.preview') IS NULL, scores.id LIMIT ?"
    )
    db.execute(f"DELETE FROM scores WHERE id IN ({oldest})", [count - cap + cap // 20])
    drop_unused(db)


def drop_unused(db: sqlite3.Connection) -> None:
    """Forget what no score refers to any more."""
    db.execute("DELETE FROM specs WHERE digest NOT IN (SELECT spec FROM scores)")


def key(spec: ScoreSpec, image: str | None, prompt: str | None) -> str | None:
    """What makes two scorings the same one; the prompt only where the scorer reads it."""
    return (
        None if image is None else hashed(json.dumps([spec.digest, image, prompt if "prompt" in spec.needs else None]))
    )


def _clean(text: str | None) -> str | None:
    """Text that can be stored: bytes of a file name that are no text become a question mark."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def hashed(text: str) -> str:
    """32 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """The rows of an answer by the names of its columns."""
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def iso(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
