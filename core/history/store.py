"""Every score ever given, in one SQLite file: percentiles of one's own history, queries, pruning. Records only.

The same picture under the same scorer and settings counts once, however often it is scored. Of a prompt and of a
picture only a hash is kept. Several processes may write at once, and a process that is killed leaves the file whole.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..database import Layout, read, transact
from ..errors import BadInput
from ..records import ScoreBatch, ScoreSpec
from .rows import Standing, add, count_of, dicts, drop_unused, hashed, iso, key, median, prune_to, standing

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

#: What :meth:`History.query` gives, in this order.
COLUMNS = ("time", "scorer", "model", "spec", "score", "reason", "seed", "prompt", "image")


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
        conditionings: Sequence[str | None] | None = None,
    ) -> list[Standing | None]:
        """Add the scores of a batch that are new; tell where each stands among those that were there before.

        Args:
            batch: The scores.
            images: A hash of each image's pixels; ``None`` where there is none: such a score always counts as new.
            prompts: The prompt of each image, of which a hash is stored.
            at: Unix seconds; now when left out.
            conditionings: Where no prompt is known: a hash of what each image was made from, ``None`` where there is
                none. It is stored with ``c:`` before it, so that it is never taken for the hash of a text.

        Returns:
            For each score its standing; ``None`` without a value or without an earlier score.
        """
        for what, items in (("image hashes", images), ("prompts", prompts), ("conditionings", conditionings)):
            if items is not None and len(items) != len(batch):
                raise BadInput(f"{len(batch)} {what}", str(len(items)), "Give one per score.")
        texts = [found if found is None else f"c:{found}" for found in conditionings or [None] * len(batch)]
        texts = texts if prompts is None else [hashed(prompt) for prompt in prompts]
        entries = list(zip(batch, images, texts, strict=True))
        when = time.time() if at is None else at

        def work(db: sqlite3.Connection) -> list[Standing | None]:
            keys = [key(batch.spec, image, text) for _, image, text in entries]
            among = count_of(db, batch.spec)
            found = [standing(db, batch.spec, score, key, among) for score, key in zip(batch, keys, strict=True)]
            add(
                db,
                batch.spec,
                [(when, score, text, image, key) for (score, image, text), key in zip(entries, keys, strict=True)],
            )
            prune_to(db, self.cap)
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
            rows = dicts(db.execute(grouped, values))
            for row in rows:
                spec = json.loads(row.pop("spec_json"))
                row["direction"], row["median"] = spec["direction"], median(db, row["spec"], where, values)
                row["first"], row["last"] = iso(row["first"]), iso(row["last"])
            return rows

        return self._read(work)

    def query(self, choice: Choice | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """Scores with :data:`COLUMNS`, newest first; ``most`` limits them. ``spec`` is the digest of the settings."""
        where, values = (choice or Choice()).sql()
        text = (
            f"SELECT at AS time, scorer, model, scores.spec AS spec, value AS score, reason, seed, prompt, image"
            f" FROM scores JOIN specs ON digest = scores.spec{where} ORDER BY scores.id DESC LIMIT ?"
        )
        rows = self._read(lambda db: dicts(db.execute(text, [*values, -1 if most is None else most])))
        return [
            {**row, "time": iso(row["time"]), "seed": None if row["seed"] is None else int(row["seed"])} for row in rows
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
            drop_unused(db)
            return gone

        return transact(self.path, _LAYOUT, work, **self._options)
