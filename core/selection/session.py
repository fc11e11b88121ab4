"""The best of a session: pictures of many runs, kept apart in ``best/`` and ``rest/`` of one folder. No torch.

The folder is the truth: every file carries its score. ``session.sqlite`` beside it is an index, and the lock under
which one process at a time works; what it lacks after a kill, or after files were moved by hand, is read from the files
again. A picture is never deleted and never overwritten; one that the user takes away no longer counts.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..database import Layout, transact
from ..errors import BadInput, UnwritableFile
from ..records import Score, ScoreBatch, ScoreSpec
from .policy import Policy, Selection, select
from .session_files import move, number_of, whole_files

BEST, REST = "best", "rest"
INDEX = "session.sqlite"

_LAYOUT = Layout(
    application=0x4C435365,  # "LCSe"
    version=1,
    schema=(
        # spec is '' for files that are not ours.
        "CREATE TABLE pictures (path TEXT PRIMARY KEY, number INTEGER NOT NULL, spec TEXT NOT NULL, value REAL,"
        " reason TEXT, seed TEXT, pixels TEXT)",
    ),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What a saved file says of itself: its score, the digest of the score's spec, a hash of its pixels."""

    score: Score
    spec: str
    pixels: str | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that joins the session.

    Attributes:
        score: Its score, or the reason why there is none.
        pixels: A hash of its pixels; a picture that is in the session already is not saved again.
        save: (folder, number) → the path of the new file, named ``…_00042_.png`` and holding the score.
    """

    score: Score
    pixels: str
    save: Callable[[Path, int], Path]


@dataclass(frozen=True, slots=True)
class Member:
    """A picture of the session as it lies there after a run; ``index`` of its score is its number."""

    path: Path
    score: Score
    pixels: str | None
    best: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The session after a run.

    Attributes:
        added: Each picture of the run, in the order in which it came; one that was there before as it lay there.
        repeated: How many of these were there before.
        best: Everything in ``best/``, best first.
        seen: How many pictures count in the session.
        unscored: How many of these have no score.
    """

    added: tuple[Member, ...]
    repeated: int
    best: tuple[Member, ...]
    seen: int
    unscored: int


class Session:
    """A session's folder."""

    def __init__(self, folder: str | Path, read: Callable[[Path], Known | None], timeout: float = 60.0) -> None:
        """Nothing is touched yet.

        Args:
            folder: Of the session; made when it is missing.
            read: What a file says of itself; ``None`` for a picture of someone else.
            timeout: How long to wait, in seconds, for another process that is at work in the folder.
        """
        self.folder, self._read, self._timeout = Path(folder), read, timeout

    def add(self, spec: ScoreSpec, pictures: Sequence[Picture], policy: Policy) -> Outcome:
        """Let pictures join, save them, and move those that this decides differently about.

        Raises:
            BadInput: the session's pictures were scored by another scorer or with other settings.
            UnwritableFile: the disk is full, or the folder takes no files. What was saved stays and counts.
        """

        def work(db: sqlite3.Connection) -> Outcome:
            self._repair(db)
            before = self._members(db, spec)
            return self._join(db, spec, before, pictures, policy)

        return transact(self.folder / INDEX, _LAYOUT, work, timeout=self._timeout, set_damaged_aside=True)

    def _repair(self, db: sqlite3.Connection) -> None:
        """Make the index say what is in the folder; clear away what a kill left unfinished."""
        try:
            for side in (BEST, REST):
                (self.folder / side).mkdir(exist_ok=True)
            found = {f"{side}/{name}" for side in (BEST, REST) for name in whole_files(self.folder / side)}
        except OSError as error:
            raise UnwritableFile(
                f"to read {self.folder}", error.strerror or str(error), "Check the rights of the folder."
            ) from error
        indexed = {path for (path,) in db.execute("SELECT path FROM pictures")}
        db.executemany("DELETE FROM pictures WHERE path = ?", [(path,) for path in indexed - found])
        for path in sorted(found - indexed):
            try:
                known = self._read(self.folder / path)
            except OSError:
                continue  # tried again at the next run
            _index(db, path, known)

    def _members(self, db: sqlite3.Connection, spec: ScoreSpec) -> list[Member]:
        mine = db.execute(
            "SELECT path, number, value, reason, seed, pixels FROM pictures WHERE spec = ? ORDER BY number, path",
            [spec.digest],
        ).fetchall()
        others = db.execute("SELECT count(*) FROM pictures WHERE spec NOT IN (?, '')", [spec.digest]).fetchone()[0]
        if others and not mine:
            raise BadInput(
                f"a session of pictures scored by {spec.name} with these very settings",
                f"{self.folder.name}, whose {others} pictures were scored otherwise",
                "Start a new session: give it another name. Nothing was changed.",
            )
        return [
            Member(
                self.folder / path,
                Score(value, number, reason, None if seed is None else int(seed)),
                pixels,
                best=path.startswith(f"{BEST}/"),
            )
            for path, number, value, reason, seed, pixels in mine
        ]

    def _join(
        self,
        db: sqlite3.Connection,
        spec: ScoreSpec,
        before: list[Member],
        pictures: Sequence[Picture],
        policy: Policy,
    ) -> Outcome:
        """Decide about all, save the new ones where they belong, then move the others."""
        places = {member.pixels: place for place, member in enumerate(before) if member.pixels is not None}
        number = db.execute("SELECT coalesce(max(number), 0) FROM pictures").fetchone()[0]
        fresh: list[Picture] = []
        where = []
        for picture in pictures:
            if picture.pixels not in places:
                places[picture.pixels] = len(before) + len(fresh)
                fresh.append(picture)
            where.append(places[picture.pixels])
        scores = [member.score for member in before]
        scores += [replace(picture.score, index=number + 1 + at) for at, picture in enumerate(fresh)]
        selection = select(ScoreBatch(spec, tuple(scores)), policy)
        kept = set(selection.kept)
        saved = [
            self._save(db, spec, picture, scores[len(before) + at].index, len(before) + at in kept)
            for at, picture in enumerate(fresh)
        ]
        # best/ is never short of a picture, not even for a moment: those that leave it go last.
        moving = [place for place, member in enumerate(before) if member.best != (place in kept)]
        moved = {place: self._move(db, before[place]) for place in sorted(moving, key=lambda place: place not in kept)}
        after = [moved.get(place, member) for place, member in enumerate([*before, *saved])]
        return _outcome(after, where, len(pictures) - len(fresh), selection)

    def _save(self, db: sqlite3.Connection, spec: ScoreSpec, picture: Picture, number: int, best: bool) -> Member:
        side = BEST if best else REST
        path = picture.save(self.folder / side, number)
        known = Known(replace(picture.score, index=number), spec.digest, picture.pixels)
        _index(db, f"{side}/{path.name}", known)
        return Member(path, known.score, picture.pixels, best)

    def _move(self, db: sqlite3.Connection, member: Member) -> Member:
        """To the other side; a file that something holds open stays where it is until the next run."""
        side = REST if member.best else BEST
        try:
            path = move(member.path, self.folder / side)
        except OSError as error:
            _log.warning("%s stays where it is until the next run: %s", member.path, error)
            return member
        old = f"{member.path.parent.name}/{member.path.name}"
        db.execute("UPDATE pictures SET path = ? WHERE path = ?", [f"{side}/{path.name}", old])
        return replace(member, path=path, best=not member.best)


def _outcome(after: Sequence[Member], where: Iterable[int], repeated: int, selection: Selection) -> Outcome:
    members = [replace(member, why=why) for member, why in zip(after, selection.why, strict=True)]
    return Outcome(
        added=tuple(members[place] for place in where),
        repeated=repeated,
        best=tuple(members[place] for place in selection.ranking if members[place].best),
        seen=len(members),
        unscored=sum(not member.score.ok for member in members),
    )


def _index(db: sqlite3.Connection, path: str, known: Known | None) -> None:
    number = number_of(path)
    if number is None:
        number = db.execute("SELECT coalesce(max(number), 0) + 1 FROM pictures").fetchone()[0]
    row = (path, 0, "", None, None, None, None)
    if known is not None:
        score = known.score
        seed = None if score.seed is None else str(score.seed)
        row = (path, number, known.spec, score.value, score.reason, seed, known.pixels)
    db.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", row)
