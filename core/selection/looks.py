"""When to look at running candidates, and how many go on: from a user's words to steps of a schedule. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import BadInput
from .halving import Halving


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at fractions of the schedule.

    Attributes:
        at: Fractions, rising, each in (0, 1). Empty: no look, everybody is finished.
        keep: Share of the live candidates that goes on after each, each in (0, 1]; one for all looks, or one each.
    """

    at: tuple[float, ...] = (0.2, 0.6)
    keep: tuple[float, ...] = (0.3, 0.6)

    def __post_init__(self) -> None:
        if any(not 0 < fraction < 1 for fraction in self.at) or any(a >= b for a, b in pairwise(self.at)):
            raise BadInput("rising fractions between 0 and 1", _list(self.at), "Write for example: 0.2, 0.4")
        if self.at and len(self.keep) not in (1, len(self.at)):
            raise BadInput(
                f"one share for all looks, or {len(self.at)}", _list(self.keep), "Write for example: 0.5, 0.25"
            )
        Halving(self.keep)  # checks the shares

    def marks(self, steps: int) -> tuple[tuple[int, float], ...]:
        """(after this many steps, share that goes on), rising; at least one step, and at least one step left.

        Looks that fall on one step become one, whose share is their product: few steps do not mean fewer dropped.
        """
        shares = self.keep * len(self.at) if len(self.keep) == 1 else self.keep
        found: dict[int, float] = {}
        for fraction, share in zip(self.at, shares, strict=False):
            step = max(1, round(fraction * steps))
            if step < steps:
                found[step] = found.get(step, 1.0) * share
        return tuple(found.items())


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers in a text, apart by commas, semicolons or white space.

    Raises:
        BadInput: something that is no number.
    """
    words: Sequence[str] = [word for word in re.split(r"[\s,;]+", text) if word]
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise BadInput(f"{what} as numbers apart by commas", repr(text), "Write for example: 0.2, 0.4") from error


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
