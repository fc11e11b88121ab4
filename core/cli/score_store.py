"""The benchmark's values kept as they come: one journal per scorer, its settings and its data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..records import Score, ScoreSpec
from .journal import FileStamp, Journal


class JournalStore:
    """A :class:`~.journal.Journal` that also tells apart what was made of one file."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def value(self, path: Path, mark: str) -> float | None:
        """The score that this very file, so treated, got before."""
        return self._journal.value(_stamp(path, mark))

    def add(self, found: Iterable[tuple[Path, str, Score]]) -> None:
        """Append scores and flush them to the disk."""
        self._journal.add([(_stamp(path, mark), score) for path, mark, score in found])


def _stamp(path: Path, mark: str) -> FileStamp:
    stamp = FileStamp.of(path)
    return replace(stamp, path=f"{stamp.path}\t{mark}") if mark else stamp


class JournalFolder:
    """Opens the journal of a scorer in a folder; its name tells data set, scorer and settings apart."""

    def __init__(self, folder: Path, data: str) -> None:
        self._folder, self._data = folder, "".join(sign if sign.isalnum() else "_" for sign in data)

    @contextmanager
    def __call__(self, spec: ScoreSpec) -> Iterator[JournalStore]:
        """The store of one scorer, while it scores."""
        with Journal(self._folder / f"{self._data}-{spec.name}-{spec.digest}.jsonl", spec) as journal:
            yield JournalStore(journal)
