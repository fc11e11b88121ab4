"""How far prompt alignment's numbers of one prompt lie apart over pictures, which blends divide them by."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backbone.fingerprint import Fingerprint
from ..errors import UnreadableFile

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone

#: Written by .ci/alignment_spread.py.
MEASURED = Path(__file__).parents[1] / "assets" / "genziqa" / "alignment.json"
#: Where nothing was measured.
CONVENTION = 0.1


@dataclass(frozen=True, slots=True)
class Spread:
    """A spread, and where it comes from.

    Attributes:
        value: In the numbers' own unit.
        source: In words.
    """

    value: float
    source: str


def spread_on(
    backbone: Backbone, timesteps: Sequence[int], side: int | None, given: float | None, file: Path = MEASURED
) -> Spread:
    """The user's own, the one measured on this model with these settings, or the convention.

    Raises:
        UnreadableFile: the measured one's file is damaged.
    """
    if given is not None:
        return Spread(given, "given by the user")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        same = told["timesteps"] == list(timesteps) and told["side"] == side
        if same and Fingerprint.from_text(told["backbone"]).matches(backbone.fingerprint):
            return Spread(float(told["spread"]), f"measured on this model: {told['pictures']} pictures, {told['data']}")
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableFile("the package's alignment.json", str(error), "Install the package again.") from error
    return Spread(CONVENTION, "a convention, not measured on this model")


def pooled_spread(values: Sequence[Sequence[float]]) -> float:
    """Standard deviation within prompts, pooled over them: values [prompts][pictures]; NaN without two pictures."""
    rows = [np.asarray(row, dtype=float) for row in values if len(row) > 1]
    if not rows:
        return math.nan
    squares = sum(float(np.square(row - row.mean()).sum()) for row in rows)
    return math.sqrt(squares / sum(len(row) - 1 for row in rows))
