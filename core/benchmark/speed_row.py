"""One line of the speed report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .timing import Timings

#: Fewer turns than these say nothing of an interval.
_TURNS = 5


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """A ratio of two measurements of one run; at most its limit is good.

    Attributes:
        name: What was measured.
        ratio: The measurement over its reference.
        limit: The largest good ratio.
        unit: What both are measured in.
        detail: Both figures, and how they came about.
    """

    name: str
    ratio: float
    limit: float
    unit: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def time_row(
    timings: Timings, job: str, reference: str, *, name: str, limit: float, detail: str, factor: float = 1.0
) -> SpeedRow:
    """A row of one job's time over ``factor`` times another's, with the ratio's interval where there are five turns."""
    first, second = timings.seconds(job), factor * timings.seconds(reference)
    figures = f"{first * 1e3:.0f} ms over {second * 1e3:.0f} ms"
    if len(timings.taken[job]) >= _TURNS:
        low, high = timings.interval(job, reference, factor)
        figures += f", 95 % interval {low:.3f} to {high:.3f}"
    return SpeedRow(name, timings.ratio(job, reference, factor), limit, "time", f"{figures}: {detail}")
