"""Every score ever given, in one SQLite file: percentiles of one's own history, queries, pruning. Records only.

The same picture under the same scorer and settings counts once, however often it is scored. Of a prompt and of a
picture only a hash is kept. Several processes may write at once, and a process that is killed leaves the file whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from .database import Layout, read, transact
from .errors import BadInput
from .records import Score, ScoreBatch, ScoreSpec

T = TypeVar("T")

_LAYOUT = Layout(
    application=0x4C434869,  # "LCHi"
    version=1,
    schema=(
        "CREATE TABLE specs (digest TEXT PRIMARY KEY, scorer TEXT NOT NULL, model TEXT, spec TEXT NOT NULL)",
        "CREATE TABLE scores (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, spec TEXT NOT NULL, value REAL,"
        " reason TEXT, seed TEXT, prompt TEXT, image TEXT, key TEXT UNIQUE)",
        "CREATE INDEX scores_by_value ON scores (spec, value)",
    ),
    wal=True,
)

#: Scores that a history holds; the oldest go first. About 250 bytes each.
CAP = 200_000

_COUNT = "SELECT count(*) FROM scores WHERE spec = ? AND value"

#: What :meth:`History.query` gives, in this order.
COLUMNS = ("time", "scorer", "model", "spec", "score", "reason", "seed", "prompt", "image")


#: Names the file, or says ``off`` (also ``0``, ``no``, ``false``) or ``on``.
VARIABLE = "LATENT_CRITIC_HISTORY"


def location(default: Path) -> Path | None:
    """The file that the environment variable names, else the default; ``None`` when the history is switched off.

    Raises:
        BadInput: the variable names the home folder of somebody who has none.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen.lower() in ("", "on", "1", "yes", "true"):
        return default
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise BadInput(f"a file, on or off in {VARIABLE}", repr(chosen), f"No such home folder ({error}).") from error


def in_user_folder(folder: str | Path) -> Path:
    """Where the history lies in ComfyUI's user folder."""
    return Path(folder) / "latent_critic" / "history.sqlite"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a score stands among the earlier ones of the same scorer, settings and model.

    Attributes:
        percentile: Share of the earlier scores that are worse, in per cent; equal ones count half.
        among: How many earlier scores there are, ≥ 1.
    """

    percentile: float
    among: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scores a query, export or pruning is about; ``None`` leaves a rule out.

    Attributes:
        scorer: Registry name.
        model: Start of the diffusion model's fingerprint.
        since, until: Unix seconds; from the first (included) to the second (not included).
    """

    scorer: str | None = None
    model: str | None = None
    since: float | None = None
    until: float | None = None

    def sql(self) -> tuple[str, list[Any]]:
        """A WHERE clause over ``scores`` joined with ``specs``, and its values."""
        rules = (
            ("scorer = ?", self.scorer),
            ("instr(model, ?) = 1", self.model),
            ("at >= ?", self.since),
            ("at < ?", self.until),
        )
        used = [(rule, value) for rule, value in rules if value is not None]
        where = f" WHERE {' AND '.join(rule for rule, _ in used)}" if used else ""
        return where, [value for _, value in used]


class History:
    """The history in one file, which is made on first use. Nothing stays open between calls.

    Reading needs no right to write and waits for no writer. Writing raises UnwritableFile where the file cannot be
    written; every method raises UnreadableFile where it is damaged (writing only without ``set_damaged_aside``), newer,
    or another program's.
    """

    def __init__(
        self, path: str | Path, cap: int = CAP, *, set_damaged_aside: bool = False, timeout: float = 10.0
    ) -> None:
        if cap < 1:
            raise BadInput("a cap of at least 1 score", str(cap), "Switch the history off instead.")
        self.path, self.cap = Path(path), cap
        self._options: dict[str, Any] = {"set_damaged_aside": set_damaged_aside, "timeout": timeout}

    def record(
        self,
        batch: ScoreBatch,
        images: Sequence[str | None],
        prompts: Sequence[str] | None = None,
        at: float | None = None,
        conditionings: Sequence[str] | None = None,
    ) -> list[Standing | None]:
        """Add the scores of a batch that are new; tell where each stands among those that were there before.

        Args:
            batch: The scores.
            images: A hash of each image's pixels; ``None`` where there is none: such a score always counts as new.
            prompts: The prompt of each image, of which a hash is stored.
            at: Unix seconds; now when left out.
            conditionings: Where no prompt is known: a hash of what each image was made from. It is stored with ``c:``
                before it, so that it is never taken for the hash of a text.

        Returns:
            For each score its standing; ``None`` without a value or without an earlier score.
        """
        for what, items in (("image hashes", images), ("prompts", prompts), ("conditionings", conditionings)):
            if items is not None and len(items) != len(batch):
                raise BadInput(f"{len(batch)} {what}", str(len(items)), "Give one per score.")
        texts = [None] * len(batch) if conditionings is None else [f"c:{found}" for found in conditionings]
        texts = texts if prompts is None else [_hash(prompt) for prompt in prompts]
        entries = list(zip(batch, images, texts, strict=True))
        when = time.time() if at is None else at

        def work(db: sqlite3.Connection) -> list[Standing | None]:
            keys = [_key(batch.spec, image, text) for _, image, text in entries]
            among = db.execute(f"{_COUNT} IS NOT NULL", [batch.spec.digest]).fetchone()[0]
            found = [_standing(db, batch.spec, score, key, among) for score, key in zip(batch, keys, strict=True)]
            _add(
                db,
                batch.spec,
                [(when, score, text, image, key) for (score, image, text), key in zip(entries, keys, strict=True)],
            )
            _prune_to(db, self.cap)
            return found

        return transact(self.path, _LAYOUT, work, **self._options)

    def summary(self, choice: Choice | None = None) -> list[dict[str, Any]]:
        """One row per scorer, model and settings, the most used first: count, spread and times of its scores."""
        where, values = (choice or Choice()).sql()
        grouped = (
            "SELECT scorer, model, spec, count(*) AS count, count(value) AS scored, min(value) AS lowest,"
            " max(value) AS highest, min(at) AS first, max(at) AS last, spec_json FROM (SELECT scores.*, scorer, model,"
            f" specs.spec AS spec_json FROM scores JOIN specs ON digest = scores.spec{where})"
            " GROUP BY spec ORDER BY count DESC, spec"
        )

        def work(db: sqlite3.Connection) -> list[dict[str, Any]]:
            rows = _dicts(db.execute(grouped, values))
            for row in rows:
                spec = json.loads(row.pop("spec_json"))
                row["direction"], row["median"] = spec["direction"], _median(db, row["spec"], where, values)
                row["first"], row["last"] = _iso(row["first"]), _iso(row["last"])
            return rows

        return self._read(work)

    def query(self, choice: Choice | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """Scores with :data:`COLUMNS`, newest first; ``most`` limits them. ``spec`` is the digest of the settings."""
        where, values = (choice or Choice()).sql()
        text = (
            f"SELECT at AS time, scorer, model, scores.spec AS spec, value AS score, reason, seed, prompt, image"
            f" FROM scores JOIN specs ON digest = scores.spec{where} ORDER BY scores.id DESC LIMIT ?"
        )
        rows = self._read(lambda db: _dicts(db.execute(text, [*values, -1 if most is None else most])))
        return [
            {**row, "time": _iso(row["time"]), "seed": None if row["seed"] is None else int(row["seed"])}
            for row in rows
        ]

    def specs(self) -> dict[str, ScoreSpec]:
        """What the scores mean, by digest."""
        found = self._read(lambda db: db.execute("SELECT digest, spec FROM specs").fetchall())
        return {digest: ScoreSpec.from_dict(json.loads(text)) for digest, text in found}

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return read(self.path, _LAYOUT, work, timeout=self._options["timeout"])

    def prune(self, keep: int, choice: Choice | None = None) -> int:
        """Remove all but the newest ``keep`` of the chosen scores; returns how many went."""
        if keep < 0:
            raise BadInput("a number to keep of at least 0", str(keep), "0 removes every chosen score.")
        where, values = (choice or Choice()).sql()
        text = (
            f"DELETE FROM scores WHERE id IN (SELECT scores.id FROM scores JOIN specs ON digest = scores.spec{where}"
            " ORDER BY scores.id DESC LIMIT -1 OFFSET ?)"
        )

        def work(db: sqlite3.Connection) -> int:
            gone = db.execute(text, [*values, keep]).rowcount
            _drop_unused(db)
            return gone

        return transact(self.path, _LAYOUT, work, **self._options)


def _add(db: sqlite3.Connection, spec: ScoreSpec, entries: Sequence[tuple[Any, ...]]) -> None:
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


def _standing(db: sqlite3.Connection, spec: ScoreSpec, score: Score, key: str | None, among: int) -> Standing | None:
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


def _median(db: sqlite3.Connection, digest: str, where: str, values: Sequence[Any]) -> float | None:
    inside = f" FROM scores JOIN specs ON digest = scores.spec{where}{' AND' if where else ' WHERE'} value IS NOT NULL"
    chosen = f"{inside} AND scores.spec = ?"
    count = db.execute(f"SELECT count(*){chosen}", [*values, digest]).fetchone()[0]
    ordered = f"SELECT value{chosen} ORDER BY value LIMIT ? OFFSET ?"
    middle = db.execute(ordered, [*values, digest, 2 - count % 2, max(0, (count - 1) // 2)]).fetchall()
    return sum(value for (value,) in middle) / len(middle) if middle else None


def _prune_to(db: sqlite3.Connection, cap: int) -> None:
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
    _drop_unused(db)


def _drop_unused(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM specs WHERE digest NOT IN (SELECT spec FROM scores)")


def _key(spec: ScoreSpec, image: str | None, prompt: str | None) -> str | None:
    """What makes two scorings the same one; the prompt only where the scorer reads it."""
    return (
        None if image is None else _hash(json.dumps([spec.digest, image, prompt if "prompt" in spec.needs else None]))
    )


def _clean(text: str | None) -> str | None:
    """Text that can be stored: bytes of a file name that are no text become a question mark."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
