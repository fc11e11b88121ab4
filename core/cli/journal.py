"""An append-only journal of scores: a run that is killed at any moment goes on where it was.

One JSON object a line. The first line says which scorer wrote it; each further line is one file's score with the size
and time of change that the file had, so that a picture that was edited since is scored again. A line that a kill cut
short is taken off before the next one is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import BadInput, LatentCriticError
from ..files import unwritable
from ..records import Score, ScoreSpec

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file as it was when it was scored."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The file's stamp now; a file that cannot be looked at never equals a stamp of one that could."""
        try:
            seen = path.stat()
        except OSError:
            return cls(str(path.absolute()), -1, -1)
        return cls(str(path.absolute()), seen.st_size, seen.st_mtime_ns)


class Journal:
    """The journal file, open for appending."""

    def __init__(self, path: str | Path, spec: ScoreSpec) -> None:
        """Open or create.

        Raises:
            BadInput: the file is something else, or another scorer's journal.
        """
        self.path = Path(path)
        heading = {"latent_critic_journal": _FORMAT, "spec": json.loads(json.dumps(spec.to_dict(), default=str))}
        self._values: dict[FileStamp, float] = {}
        if self.path.is_dir():
            raise self._foreign("a folder")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._read(heading)
        except LatentCriticError:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def value(self, stamp: FileStamp) -> float | None:
        """The score that this very file got before; ``None`` when it got none (then it is tried again)."""
        return self._values.get(stamp)

    def add(self, found: Iterable[tuple[FileStamp, Score]]) -> None:
        """Append scores and flush them to the disk."""
        lines = "".join(
            _line({"path": s.path, "size": s.size, "changed": s.changed, "score": score.value, "reason": score.reason})
            for s, score in found
        )
        self._append(lines)

    def _append(self, text: str) -> None:
        left = text.encode("ascii")
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _read(self, heading: dict[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            if not _line(heading).encode("ascii").startswith(content):
                raise self._foreign("a file of another kind")
            os.ftruncate(self._file, 0)
            self._append(_line(heading))
            return
        found = [self._parsed(number, line) for number, line in enumerate(lines, 1)]
        if "latent_critic_journal" not in found[0]:
            raise self._foreign("a file of another kind")
        if found[0] != heading:
            spec = found[0].get("spec")
            scorer = spec.get("name") if isinstance(spec, dict) else "unknown"
            raise self._foreign(f"the journal of another scorer, other settings or another version ({scorer})")
        for number, record in enumerate(found[1:], 2):
            try:
                stamp = FileStamp(record["path"], record["size"], record["changed"])
                value = record["score"]
            except KeyError as error:
                raise self._foreign(f"no {error} in line {number}") from error
            if not _well_formed(stamp, value):
                raise self._foreign(f"values of other kinds in line {number}")
            if value is not None:
                self._values[stamp] = float(value)
        os.ftruncate(self._file, len(whole))

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._foreign(f"line {number} is no JSON") from error
        if not isinstance(record, dict):
            raise self._foreign(f"line {number} is no JSON object")
        return record

    def _foreign(self, got: str) -> BadInput:
        return BadInput(f"a journal of this scorer at {self.path}", got, "Name another file for --resume.")


def _well_formed(stamp: FileStamp, value: Any) -> bool:
    if not isinstance(stamp.path, str) or type(stamp.size) is not int or type(stamp.changed) is not int:
        return False
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
