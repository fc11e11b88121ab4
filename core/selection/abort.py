"""Early abort: a running candidate that is far behind is not worth its remaining steps. No torch.

Far behind is always told by rank, among this batch or among earlier runs at the same step: a picture that is half
denoised scores low on any absolute scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import BadInput
from ..records import ScoreBatch
from .policy import numeral

AbortMode = Literal["off", "of this batch", "of history"]
ABORT_MODES: tuple[AbortMode, ...] = ("off", "of this batch", "of history")
#: A quantile of fewer values says nothing.
LEAST_HISTORY = 20
_LEAST_BATCH = 3

#: Where a preview stands among the earlier ones of the same step: (percentile 0 to 100, how many there are).
Place = tuple[float, int]


@dataclass(frozen=True, slots=True)
class EarlyAbort:
    """Below which quantile a running candidate is dropped.

    Attributes:
        mode: ``off``; ``of this batch``: among the candidates that are live at that look; ``of history``: among the
            previews that earlier runs of this scorer saw at that same step.
        quantile: 0 to 1; 0.25 drops what is worse than a quarter of them.
    """

    mode: AbortMode = "off"
    quantile: float = 0.25

    def __post_init__(self) -> None:
        if self.mode not in ABORT_MODES:
            raise BadInput(f"an early abort of {', '.join(ABORT_MODES)}", repr(self.mode), "Choose one of them.")
        if not 0 <= self.quantile <= 1:
            raise BadInput("a quantile from 0 to 1", str(self.quantile), "0.25 drops what is in the worst quarter.")

    def below(self, batch: ScoreBatch, places: Sequence[Place | None] | None = None) -> dict[int, str]:
        """Places in the batch that are to be dropped, each with the comparison in words.

        Args:
            batch: Scores of the live candidates' previews at one look. One without a score is never dropped here.
            places: Where each stands in the history, for ``of history``; ``None`` where that is not known.
        """
        if self.mode == "of this batch":
            return self._below_batch(batch)
        if self.mode == "of history" and places is not None:
            return self._below_history(batch, places)
        return {}

    def _below_batch(self, batch: ScoreBatch) -> dict[int, str]:
        scored = {place: batch.spec.goodness(s.value) for place, s in enumerate(batch) if s.value is not None}
        if len(scored) < _LEAST_BATCH:
            return {}
        bar = quantile(list(scored.values()), self.quantile)
        sign = "<" if batch.spec.direction == "higher" else ">"
        value = bar * batch.spec.spread * (1 if batch.spec.direction == "higher" else -1) + batch.spec.centre
        words = f"{sign} quantile {self.quantile:g} of this batch ({numeral(value)})"
        # The division in goodness may move a value onto the bar, never over it: both sides go through it.
        return {place: f"{numeral(batch[place].value or 0.0)} {words}" for place, good in scored.items() if good < bar}

    def _below_history(self, batch: ScoreBatch, places: Sequence[Place | None]) -> dict[int, str]:
        found = {}
        for place, (score, known) in enumerate(zip(batch, places, strict=True)):
            if score.value is None or known is None or known[1] < LEAST_HISTORY:
                continue
            percentile, among = known
            if percentile < 100 * self.quantile:
                found[place] = (
                    f"{numeral(score.value)} is at quantile {percentile / 100:.2f} of {among} earlier ones at this "
                    f"step, below {self.quantile:g}"
                )
        return found


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile of one value or more, with linear interpolation, as ``numpy.quantile`` has it."""
    ordered = sorted(values)
    where = q * (len(ordered) - 1)
    low = int(where)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (where - low)
