"""Jobs timed side by side: taken in turns, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from .bootstrap import bootstrap_interval

Job = Callable[[], object]
Clock = Callable[[], float]
#: What :func:`own_clock` measures, for a row's detail.
TOLD = "on a CPU: processor time of one thread"


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

    def interval(self, name: str, reference: str, factor: float = 1.0) -> tuple[float, float]:
        """95 % bootstrap interval of :meth:`ratio`, over the turns."""
        ratios = np.array(self.taken[name]) / (factor * np.array(self.taken[reference]))
        return bootstrap_interval(lambda places: float(np.median(ratios[places])), len(ratios))


@contextmanager
def own_clock(device: torch.device | str) -> Iterator[Clock]:
    """A clock that a busy machine disturbs least, for work on this device.

    On a CPU: this process's own processor time, on one thread, so that no thread waits for another. What else runs
    there lengthens no job, as it does by the wall's clock. On any other device: the wall's clock.
    """
    if torch.device(device).type != "cpu":
        yield time.perf_counter
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield time.process_time
    finally:
        torch.set_num_threads(before)


def interleaved(jobs: Mapping[str, Job], repeats: int, clock: Clock = time.perf_counter) -> Timings:
    """Time every job once a turn, after one turn to warm up; the order is reversed in every other turn.

    A job must end with its work done: one that leaves work queued on a device synchronises by itself.

    Args:
        jobs: By name.
        repeats: Turns.
        clock: In seconds.
    """
    for job in jobs.values():
        job()
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name in list(jobs)[:: 1 if turn % 2 == 0 else -1]:
            start = clock()
            jobs[name]()
            taken[name].append(clock() - start)
    return Timings(taken)
