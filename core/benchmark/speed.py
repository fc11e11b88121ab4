"""What scoring costs beside what it cannot do without, as ratios measured side by side in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from .speed_diff_v2 import diff_v2_rows
from .speed_judge import judge_bytes_row, judge_rows
from .speed_memory import memory_row
from .speed_row import SpeedRow
from .speed_tower import tower_rows

__all__ = ["SpeedRequest", "SpeedRow", "run_speed"]


@dataclass(frozen=True, slots=True)
class SpeedRequest:
    """What to measure.

    Attributes:
        comfyui: A ComfyUI folder, for the rows on a loaded model; without one they are left out.
        repeats: Interleaved runs behind each median.
        folder: Pictures in the small and in the large folder whose peak memory is compared.
    """

    comfyui: Path | None = None
    repeats: int = 7
    folder: tuple[int, int] = (100, 2000)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise BadInput("at least 1 repeat", str(self.repeats), "The default is 7.")
        if not 1 <= self.folder[0] < self.folder[1]:
            raise BadInput("a small and a larger folder", str(self.folder), "The default is (100, 2000).")


def run_speed(request: SpeedRequest, watch: Callable[[SpeedRow], object] | None = None) -> list[SpeedRow]:
    """Measure: eight rows on the judge, two on DiffV2IQA, and more on a loaded model where a ComfyUI folder is given.

    Args:
        request: What to measure.
        watch: Called with each row as soon as it is measured; may raise to stop.

    Raises:
        BadInput: the ComfyUI folder holds no ComfyUI, or it could not be started.
    """
    rows = []
    for row in _rows(request):
        rows.append(row)
        if watch is not None:
            watch(row)
    return rows


def _rows(request: SpeedRequest) -> Iterator[SpeedRow]:
    yield judge_bytes_row()
    yield from judge_rows(request.repeats)
    yield from tower_rows(request.repeats)
    yield memory_row(*request.folder)
    yield from diff_v2_rows(request.repeats)
    if request.comfyui is not None:
        from .speed_comfyui import comfyui_rows

        yield from comfyui_rows(request.comfyui, request.repeats)
