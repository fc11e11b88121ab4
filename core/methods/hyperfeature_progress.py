"""Progress over calls that each hold some views of some pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Watch

#: Progress is told in hundredths of a view.
_UNITS = 100


class Progress:
    """Steps of the calls, each over some rows, as one count for a watch."""

    def __init__(self, watch: Watch | None, views: int) -> None:
        self._watch, self._total, self._done = watch, _UNITS * views, 0

    def rows(self, count: int) -> Watch | None:
        """A watch for a call over ``count`` views."""
        if self._watch is None:
            return None

        def step(done: int, total: int) -> None:
            assert self._watch is not None
            self._watch(self._done + _UNITS * count * done // max(1, total), self._total)

        return step

    def finish(self, count: int) -> None:
        """A call over ``count`` views has ended."""
        self._done += _UNITS * count
