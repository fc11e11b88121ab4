"""One line of the speed report, and the two that every scorer on a loaded model has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .timing import TOLD, Job, Timings, interleaved, own_clock

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..methods.contract import Scorer

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


def scorer_rows(
    scorer: Scorer,
    bare: Callable[[Tensor], object],
    images: Sequence[Tensor],
    *,
    repeats: int,
    device: torch.device,
    calls: str,
) -> list[SpeedRow]:
    """Two rows of a scorer: over its bare calls, and linear in images.

    Args:
        scorer: Ready: what it computes once and for all is computed.
        bare: Makes the network calls of one image's score, and no more.
        images: Two of one size [3, side, side].
        repeats: Interleaved runs behind each median.
        device: The model's.
        calls: Those of ``bare``, in words.
    """
    jobs: dict[str, Job] = {
        "one": lambda: scorer.score(images[:1]),
        "bare": lambda: bare(images[0]),
        "two": lambda: scorer.score(images),
    }
    with own_clock(device) as clock:
        row = partial(time_row, interleaved(jobs, repeats, clock))
    name, side = scorer.spec.name, images[0].shape[-1]
    size = f"of {side}×{side} px, {repeats} interleaved runs, {TOLD}"
    return [
        row("one", "bare", name=f"{name}: over its bare calls", limit=1.05, detail=f"1 image {size}; bare: {calls}"),
        row("two", "one", factor=2, name=f"{name}: linear in images", limit=1.1, detail=f"2 images {size}"),
    ]
