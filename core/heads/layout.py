"""Where in a feature vector which tap, noise level and reducer lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ..errors import BadInput


@dataclass(frozen=True, slots=True)
class Slot:
    """A run of neighbouring features.

    Attributes:
        tap: The tap's name.
        level: Number of the noise level, 0 for the highest.
        reducer: What was kept of the tap's grid, by name: ``mean``, ``std`` …
        start: First place in the vector.
        stop: Last place + 1.
        view: Which view of the picture: ``whole`` or ``crops`` (the average over native-scale crops).
    """

    tap: str
    level: int
    reducer: str
    start: int
    stop: int
    view: str = "whole"

    @property
    def size(self) -> int:
        """How many features."""
        return self.stop - self.start

    @property
    def name(self) -> tuple[str, int, str, str]:
        """What tells it from other slots."""
        return self.tap, self.level, self.reducer, self.view


@dataclass(frozen=True, slots=True)
class Layout:
    """All slots of a feature vector, in its order.

    Raises:
        BadInput: no slots, gaps or overlaps between them, or two that are the same.
    """

    slots: tuple[Slot, ...]

    def __post_init__(self) -> None:
        ends = [(slot.start, slot.stop) for slot in self.slots]
        whole = bool(ends) and ends[0][0] == 0 and all(first < last for first, last in ends)
        if not whole or any(before[1] != after[0] for before, after in pairwise(ends)):
            raise BadInput("slots that follow each other from 0 on", str(ends)[:80], "Build it with Layout.of.")
        if len({slot.name for slot in self.slots}) < len(self.slots):
            raise BadInput("slots that differ", "one twice", "Name each tap, level, reducer and view once.")

    @classmethod
    def of(cls, parts: Iterable[tuple[str, int, str, str, int]]) -> Layout:
        """From (tap, level, reducer, view, number of features), in order."""
        slots: list[Slot] = []
        at = 0
        for tap, level, reducer, view, size in parts:
            slots.append(Slot(tap, level, reducer, at, at + size, view))
            at += size
        return cls(tuple(slots))

    @property
    def size(self) -> int:
        """Length of the vector."""
        return self.slots[-1].stop

    @property
    def taps(self) -> tuple[str, ...]:
        """Each tap once, in order."""
        return tuple(dict.fromkeys(slot.tap for slot in self.slots))

    @property
    def levels(self) -> tuple[int, ...]:
        """Each noise level once, in order."""
        return tuple(dict.fromkeys(slot.level for slot in self.slots))

    @property
    def reducers(self) -> tuple[str, ...]:
        """Each reducer once, in order."""
        return tuple(dict.fromkeys(slot.reducer for slot in self.slots))

    @property
    def views(self) -> tuple[str, ...]:
        """Each view once, in order."""
        return tuple(dict.fromkeys(slot.view for slot in self.slots))

    def select(self, keep: Callable[[Slot], bool]) -> tuple[Layout, list[int]]:
        """The layout of the slots that ``keep`` takes, and the places of their features in this one.

        Raises:
            BadInput: it takes none.
        """
        kept = [slot for slot in self.slots if keep(slot)]
        columns = [place for slot in kept for place in range(slot.start, slot.stop)]
        return Layout.of((slot.tap, slot.level, slot.reducer, slot.view, slot.size) for slot in kept), columns

    def to_list(self) -> list[dict[str, Any]]:
        """Plain types for JSON."""
        return [asdict(slot) for slot in self.slots]

    @classmethod
    def from_list(cls, rows: Iterable[Mapping[str, Any]]) -> Layout:
        """The inverse of :meth:`to_list`."""
        return cls(tuple(Slot(**row) for row in rows))
