"""Jobs timed side by side: taken in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Job = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each job, turn by turn."""

    taken: Mapping[str, list[float]]

    def seconds(self, name: str) -> float:
        """Median of one job."""
        return median(self.taken[name])

    def ratio(self, name: str, reference: str, factor: float = 1.0) -> float:
        """Median over the turns of one job's time over ``factor`` times another's of the same turn."""
        pairs = zip(self.taken[name], self.taken[reference], strict=True)
        return median(first / (factor * second) for first, second in pairs)


def interleaved(jobs: Mapping[str, Job], repeats: int) -> Timings:
    """Time every job once a turn, after one turn to warm up; the order is reversed in every other turn.

    A job must end with its work done: one that leaves work queued on a device synchronises by itself.
    """
    for job in jobs.values():
        job()
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name in list(jobs)[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            jobs[name]()
            taken[name].append(time.perf_counter() - start)
    return Timings(taken)
