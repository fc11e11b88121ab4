"""Ladders of known damage: which pictures are made, and how bad each is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ..data.distortions import KINDS, SEVERITIES, distort
from ..errors import BadInput


@dataclass(frozen=True, slots=True)
class LadderOptions:
    """How ladders are made and weighed.

    Attributes:
        kinds: Kinds of damage out of :data:`~..data.distortions.KINDS`.
        per_picture: Kinds that each picture gets, in turn, so that all kinds occur.
        severities: Steps of a ladder beside the untouched picture.
        prior: Weight of the judge's scores, as a share of the ladders'; 0 leaves the judge out.
        seed: Draws noise, folds and pairs.
    """

    kinds: tuple[str, ...] = KINDS
    per_picture: int = 4
    severities: tuple[int, ...] = (1, 3, 5)
    prior: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.per_picture <= len(self.kinds) or not set(self.kinds) <= set(KINDS):
            raise BadInput(
                f"kinds of damage out of {', '.join(KINDS)}, at least 1 and at most all per picture",
                f"{', '.join(self.kinds)}; {self.per_picture} per picture",
                "Leave them out for all kinds, 4 per picture.",
            )
        rising = all(before < after for before, after in pairwise(self.severities))
        if not self.severities or not rising or not set(self.severities) <= set(SEVERITIES):
            raise BadInput("rising severities from 1 to 5", str(self.severities), "The default is 1, 3, 5.")
        if not 0.0 <= self.prior <= 1.0:
            raise BadInput("a weight of the judge from 0 to 1", str(self.prior), "The default is 0.1.")

    def kinds_of(self, place: int) -> tuple[str, ...]:
        """The kinds that the picture at this place gets."""
        start = place * self.per_picture
        return tuple(self.kinds[(start + number) % len(self.kinds)] for number in range(self.per_picture))

    def per_ladders(self) -> int:
        """Pictures to be read for each picture given: itself and its damaged forms."""
        return 1 + self.per_picture * len(self.severities)


@dataclass(frozen=True, slots=True)
class Step:
    """One row: a picture, damaged or not."""

    picture: int
    kind: str
    severity: int


def ladder(image: Tensor, place: int, options: LadderOptions) -> Iterator[tuple[Step, Tensor]]:
    """A picture [3, H, W] and its damaged forms."""
    yield Step(place, "", 0), image
    for kind in options.kinds_of(place):
        for severity in options.severities:
            # Noise is drawn for each picture and step by itself.
            seed = options.seed * 1_000_003 + place * 101 + severity
            yield Step(place, kind, severity), distort(image, kind, severity, seed)
