"""Small SQLite files that several processes share: laid out once, set aside when damaged. Standard library only."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import UnreadableFile, UnwritableFile

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds.

    Attributes:
        application: A number > 0 in the file's header by which our own files are known.
        version: Of the schema, ≥ 1; a file of a higher version is refused.
        schema: SQL statements that make it.
        wal: Write-ahead log: :func:`read` never waits. Without it the file has no companions, closed or open.
    """

    application: int
    version: int
    schema: tuple[str, ...]
    wal: bool = False


def transact(
    path: Path,
    layout: Layout,
    work: Callable[[sqlite3.Connection], T],
    *,
    timeout: float = 10.0,
    set_damaged_aside: bool = False,
) -> T:
    """Run ``work`` in one write transaction: all of it or nothing, also when the process is killed.

    Only one process at a time is inside; others wait up to ``timeout`` seconds. A file that is missing is made. A
    damaged one is renamed where ``set_damaged_aside`` says so, and ``work``, which must bear being repeated, runs again
    on a new one.

    Raises:
        UnreadableFile: the file is damaged, another program's, or of a newer version.
        UnwritableFile: the file cannot be opened or written, or another program holds it.
    """
    before = _identity(path)
    try:
        return _once(path, layout, work, timeout)
    except sqlite3.DatabaseError as error:
        if not _damage(error):
            raise UnwritableFile(
                f"to write {path.name}", str(error), f"Check the disk and the rights of {path}."
            ) from error
        if not set_damaged_aside:
            raise UnreadableFile(
                f"a database at {path}", str(error), "Name the right file, or move this one away: a new one is made."
            ) from error
        # Another process may have found the damage first: then the file at this path is its new, sound one.
        if _identity(path) == before:
            _log.warning("%s is damaged (%s). It was renamed to %s, and a new one begins.", path, error, _aside(path))
    try:
        return _once(path, layout, work, timeout)
    except sqlite3.DatabaseError as error:
        raise UnwritableFile(f"to write {path.name}", str(error), f"Check the disk that holds {path}.") from error


def read(path: Path, layout: Layout, work: Callable[[sqlite3.Connection], T], *, timeout: float = 10.0) -> T:
    """Run ``work``, which only reads, on the state of this moment; a missing file reads as an empty one.

    Needs no right to write. With ``layout.wal`` it waits for no writer.

    Raises:
        UnreadableFile: the file is damaged, another program's, of a newer version, or cannot be opened.
    """
    try:
        if not path.exists():
            with closing(_empty(layout)) as db:
                return work(db)
        try:
            return _look(path, layout, work, "mode=ro", timeout)
        except sqlite3.OperationalError:
            # Beside a file in WAL mode a reader makes a companion; where nobody may do that, nobody writes either.
            if os.access(path.parent, os.W_OK):
                raise
            return _look(path, layout, work, "mode=ro&immutable=1", timeout)
    except sqlite3.DatabaseError as error:
        raise UnreadableFile(
            f"a database at {path}", str(error), "Name the right file, check its rights, or move it away."
        ) from error


def _look(path: Path, layout: Layout, work: Callable[[sqlite3.Connection], T], flags: str, timeout: float) -> T:
    address = f"{path.absolute().as_uri()}?{flags}"
    with closing(sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None)) as db:
        db.execute("BEGIN")
        if _is_ours(db, path, layout):
            return work(db)
    with closing(_empty(layout)) as db:
        return work(db)


def _empty(layout: Layout) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    _lay_out(db, layout)
    return db


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _once(path: Path, layout: Layout, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableFile(f"to make {path.parent}", error.strerror or str(error), "Check its rights.") from error
    with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as db:
        # In one transaction: between two questions another process may lay the file out.
        db.execute("BEGIN")
        laid_out = _is_ours(db, path, layout)
        db.execute("COMMIT")
        if not laid_out:
            _prepare(db, layout)
        db.execute("BEGIN IMMEDIATE")
        try:
            if not _is_ours(db, path, layout):
                _lay_out(db, layout)
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            # A full disk rolls back by itself.
            with suppress(sqlite3.DatabaseError):
                db.execute("ROLLBACK")
            raise
    return result


def _is_ours(db: sqlite3.Connection, path: Path, layout: Layout) -> bool:
    """Whether the file is laid out; False for an empty one."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        return False
    if application != layout.application:
        raise UnreadableFile(f"a file of Latent Critic at {path}", "another program's database", "Name another file.")
    if version > layout.version:
        raise UnreadableFile(
            f"{path.name} of version {layout.version} or older",
            f"version {version}",
            "Update Latent Critic, or move the file away.",
        )
    return True


def _prepare(db: sqlite3.Connection, layout: Layout) -> None:
    """What can only be set on an empty file and outside a transaction."""
    # Another process may be at it in this very moment; the file is sound with and without these settings.
    with suppress(sqlite3.OperationalError):
        db.execute("PRAGMA auto_vacuum = FULL")
        if layout.wal:
            db.execute("PRAGMA journal_mode = WAL")


def _lay_out(db: sqlite3.Connection, layout: Layout) -> None:
    for statement in layout.schema:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {layout.application}")
    db.execute(f"PRAGMA user_version = {layout.version}")


def _damage(error: sqlite3.DatabaseError) -> bool:
    """Python raises the plain class for "malformed" and "not a database", subclasses for all that is no damage."""
    return type(error) is sqlite3.DatabaseError


def _aside(path: Path) -> Path:
    """Rename a damaged file, with its log, to a name that nobody has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number, target = 1, path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    while target.exists():
        number, target = number + 1, path.with_name(f"{path.stem}.damaged-{stamp}-{number}{path.suffix}")
    try:
        # The log first: left behind, it would be played into the new file.
        for ending in ("-wal", "-shm", "-journal", ""):
            companion = path.with_name(path.name + ending)
            if companion.exists():
                companion.rename(target.with_name(target.name + ending))
    except FileNotFoundError:
        pass  # another process was faster
    except OSError as error:
        raise UnwritableFile(
            f"to rename the damaged {path.name}", error.strerror or str(error), "Close what holds it, or move it away."
        ) from error
    return target
