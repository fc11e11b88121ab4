"""Successive halving: how many go on after each look, who they are, and what it costs. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import BadInput
from ..records import ScoreBatch


@dataclass(frozen=True, slots=True)
class Halving:
    """How many go on after each look.

    Attributes:
        keep: Share of the live candidates that goes on after each look, each in (0, 1], rounded up. After the last
            share everybody who is left is finished; no share at all finishes everybody.
        least: At least this many go on, ≥ 1.
    """

    keep: tuple[float, ...] = (0.5,)
    least: int = 1

    def __post_init__(self) -> None:
        for share in self.keep:
            if not 0 < share <= 1:
                raise BadInput("shares above 0 and up to 1", str(share), "0.5 keeps the better half at that look.")
        if self.least < 1:
            raise BadInput("at least 1 candidate that goes on", str(self.least), "Raise least.")

    def counts(self, candidates: int) -> tuple[int, ...]:
        """How many are live from the start, after the first look, after the second …

        Raises:
            BadInput: no candidates.
        """
        if candidates < 1:
            raise BadInput("at least 1 candidate", str(candidates), "Give one seed or more.")
        live = [candidates]
        for share in self.keep:
            live.append(min(live[-1], max(self.least, math.ceil(live[-1] * share - 1e-9))))
        return tuple(live)

    def cost(self, candidates: int, looks: Sequence[float], extra: Sequence[float] = ()) -> float:
        """Share of the full cost that is spent when looks are at these fractions of the way, each in (0, 1), rising.

        Args:
            candidates: Seeds.
            looks: One per share.
            extra: What each look itself costs a candidate that it sees, as a share of the whole way: 0.1 for a short
                run of 2 steps where the whole way takes 20.

        Raises:
            BadInput: not one look per share, or looks that do not rise.
        """
        return spent(self.counts(candidates), looks, extra)

    def survivors(self, look: int, batch: ScoreBatch) -> tuple[int, ...]:
        """Places of the live candidates that go on after this look (from 0), in their order.

        One without a score goes on only where there are too few with one; among equals the first ones do.
        """
        if look >= len(self.keep):
            return tuple(range(len(batch)))
        count = replace(self, keep=(self.keep[look],)).counts(len(batch))[1]
        return tuple(sorted(batch.ranking()[:count]))


def spent(live: Sequence[int], looks: Sequence[float], extra: Sequence[float] = ()) -> float:
    """Share of the full cost when so many were live from the start, after the first look, after the second …

    Args:
        live: One more than there are looks.
        looks: Fractions of the way between 0 and 1, rising.
        extra: What each look costs a candidate that it sees, as a share of the whole way; nothing when empty.

    Raises:
        BadInput: not one fraction per look, or fractions that do not rise.
    """
    marks = [0.0, *looks, 1.0]
    if len(live) != len(marks) - 1 or any(low >= high for low, high in pairwise(marks)):
        raise BadInput(f"{len(live) - 1} rising fractions between 0 and 1", str(list(looks)), "One per look.")
    if extra and (len(extra) != len(looks) or min(extra) < 0):
        raise BadInput(f"{len(looks)} costs of at least 0", str(list(extra)), "One per look, or none.")
    way = sum(count * (high - low) for count, (low, high) in zip(live, pairwise(marks), strict=True))
    return (way + sum(count * cost for count, cost in zip(live, extra, strict=False))) / live[0]
