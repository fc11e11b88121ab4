"""When to look at running candidates, and how many go on: from a user's words to steps of a schedule. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..errors import BadInput
from .halving import Halving


class Mark(NamedTuple):
    """One look on a schedule.

    Attributes:
        step: After so many steps.
        share: Share of the live candidates that goes on.
        ahead: Extra steps in which the look tries the rest of the schedule; 0 looks at the predicted clean image.
    """

    step: int
    share: float = 1.0
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at fractions of the schedule.

    Attributes:
        at: Fractions, rising, each in (0, 1). Empty: no look, everybody is finished.
        keep: Share of the live candidates that goes on after each, each in (0, 1]; one for all looks, or one each.
        ahead: Extra steps in which each look tries the rest of the schedule, ≥ 0; the last counts for all further ones.
    """

    at: tuple[float, ...] = (0.1, 0.2)
    keep: tuple[float, ...] = (0.3, 0.4)
    ahead: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if any(not 0 < fraction < 1 for fraction in self.at) or any(a >= b for a, b in pairwise(self.at)):
            raise BadInput("rising fractions between 0 and 1", _list(self.at), "Write for example: 0.2, 0.4")
        if self.at and len(self.keep) not in (1, len(self.at)):
            raise BadInput(
                f"one share for all looks, or {len(self.at)}", _list(self.keep), "Write for example: 0.5, 0.25"
            )
        Halving(self.keep)  # checks the shares
        if min(self.ahead, default=-1) < 0:
            raise BadInput("extra steps of at least 0", _list(self.ahead), "Write for example: 1, 2")

    def marks(self, steps: int) -> tuple[Mark, ...]:
        """Rising; at least one step before each, and at least one step left.

        Looks that fall on one step become one, whose share is their product: few steps do not mean fewer dropped. It
        tries as many extra steps as the one of them that tries most, but no more than half of the steps that are left:
        of few steps a short run would cost more than it saves.
        """
        shares = self.keep * len(self.at) if len(self.keep) == 1 else self.keep
        tries = (*self.ahead, *[self.ahead[-1]] * len(self.at))
        found: dict[int, Mark] = {}
        for fraction, share, ahead in zip(self.at, shares, tries, strict=False):
            step = max(1, round(fraction * steps))
            if step < steps:
                before = found.get(step, Mark(step))
                found[step] = Mark(step, before.share * share, max(before.ahead, ahead))
        return tuple(mark._replace(ahead=min(mark.ahead, (steps - mark.step) // 2)) for mark in found.values())


def until_none_can_drop(marks: Sequence[Mark], candidates: int, least: int) -> tuple[Mark, ...]:
    """The marks up to the last one at which somebody is dropped, when the shares alone decide.

    Args:
        marks: Rising.
        candidates: Live at the start, ≥ 1.
        least: At least so many go on, ≥ 1.
    """
    live = Halving(tuple(mark.share for mark in marks), least).counts(candidates)
    drops = [place for place, (before, after) in enumerate(pairwise(live), 1) if after < before]
    return tuple(marks[: drops[-1] if drops else 0])


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


def parse_counts(text: str, what: str) -> tuple[int, ...]:
    """Whole numbers in a text, as :func:`parse_numbers`.

    Raises:
        BadInput: something that is no whole number.
    """
    numbers = parse_numbers(text, what)
    if not all(number.is_integer() for number in numbers):
        raise BadInput(f"{what} as whole numbers", repr(text), "Write for example: 1, 2")
    return tuple(int(number) for number in numbers)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
