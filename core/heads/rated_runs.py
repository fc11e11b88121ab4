"""Finished samplings with what they were worth, collected over days until a head can be fitted to them.

One SQLite file holds runs of one model, probe and target, because rows of others could not be fitted together. Features
are kept in half precision; of a latent and of its prompt only a hash.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbone.fingerprint import Fingerprint
from ..database import Layout, transact
from ..errors import BadInput

_LAYOUT = Layout(
    application=0x4C435252,  # "LCRR"
    version=1,
    schema=(
        "CREATE TABLE about (only INTEGER PRIMARY KEY CHECK (only = 1), told TEXT NOT NULL)",
        "CREATE TABLE runs (key BLOB PRIMARY KEY, at REAL NOT NULL, features BLOB NOT NULL, target REAL NOT NULL,"
        " prompt TEXT NOT NULL, run TEXT NOT NULL)",
    ),
)
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class About:
    """What all rows of one file share.

    Attributes:
        family: Of the diffusion model.
        fingerprint: Of its weights, as text.
        sigmas: Noise levels, highest first.
        taps: Names.
        branches: ``cond``, and ``uncond`` where it is used.
        target: What the targets are: a spec's digest, or ``ratings``.
        target_name: The same for people.
    """

    family: str
    fingerprint: str
    sigmas: tuple[float, ...]
    taps: tuple[str, ...]
    branches: tuple[str, ...]
    target: str
    target_name: str

    def differs(self, other: About) -> tuple[str, str, str] | None:
        """(field, here, there) of the first field that keeps rows apart."""
        for field in fields(self):
            here, there = getattr(self, field.name), getattr(other, field.name)
            if field.name == "fingerprint":
                if not Fingerprint.from_text(here).matches(Fingerprint.from_text(there)):
                    return "checkpoint", "one checkpoint", "another one"
            elif field.name != "target_name" and here != there:
                return field.name, str(here), str(there)
        return None


@dataclass(frozen=True, slots=True)
class RatedRun:
    """One finished image.

    Attributes:
        key: A hash of its latent: the same image is kept once, with its latest target.
        features: [D].
        target: Its score or rating.
        prompt: A hash of its prompt.
        run: Names its sampling.
    """

    key: bytes
    features: Tensor
    target: float
    prompt: str
    run: str


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything in a file: features [N, D], targets [N], and the groups that cross-validation must not split."""

    features: Tensor
    targets: Tensor
    prompts: tuple[str, ...]
    runs: tuple[str, ...]

    def groups(self) -> tuple[tuple[str, ...], str]:
        """What is held out together, and what that means: whole prompts, or whole samplings where prompts are few."""
        if len(set(self.prompts)) >= 5:
            return self.prompts, "prompts that the head had not seen"
        return self.runs, "seeds that the head had not seen, of prompts that it had seen"


class RatedRuns:
    """One file; nothing stays open between calls.

    Every method raises UnwritableFile where the file cannot be written, and UnreadableFile where it is damaged, newer,
    or another program's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, about: About, runs: Sequence[RatedRun]) -> int:
        """Add rows, all or none; the number of rows that are there now.

        Raises:
            BadInput: the file holds rows of another model, probe or target; names the field that differs.
        """

        def work(db: sqlite3.Connection) -> int:
            told = db.execute("SELECT told FROM about").fetchone()
            if told is None:
                db.execute("INSERT INTO about VALUES (1, ?)", (json.dumps(asdict(about)),))
            else:
                _refuse(self.path, _about(told[0]).differs(about))
            rows = [(r.key, time.time(), _packed(r.features), r.target, r.prompt, r.run) for r in runs]
            db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)", rows)
            return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])

        return transact(self.path, _LAYOUT, work)

    def read(self) -> Collected:
        """All rows, oldest first.

        Raises:
            BadInput: there are none.
        """

        def work(db: sqlite3.Connection) -> list[Any]:
            return db.execute("SELECT features, target, prompt, run FROM runs ORDER BY at, rowid").fetchall()

        rows = transact(self.path, _LAYOUT, work)
        if not rows:
            raise BadInput("finished runs to fit to", "none", "Collect some first.")
        features = np.stack([np.frombuffer(row[0], np.float16) for row in rows]).astype(np.float32)
        targets = torch.tensor([row[1] for row in rows], dtype=torch.float64)
        return Collected(
            torch.from_numpy(features), targets, tuple(row[2] for row in rows), tuple(row[3] for row in rows)
        )


def _packed(features: Tensor) -> bytes:
    return features.float().clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16).tobytes()


def _about(text: str) -> About:
    told: Mapping[str, Any] = json.loads(text)
    lists = {name: tuple(told[name]) for name in ("sigmas", "taps", "branches")}
    return About(**{**told, **lists})


def _refuse(path: Path, different: tuple[str, str, str] | None) -> None:
    if different is not None:
        field, here, there = different
        raise BadInput(
            f"finished runs whose {field} is {here}, as those in {path.name}",
            there,
            "Give this collection another name: rows of two kinds cannot be fitted together.",
        )
