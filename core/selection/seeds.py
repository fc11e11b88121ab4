"""Which seeds are tried, in which order: increment, random or a list. No torch."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from ..errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

SeedMode = Literal["increment", "random", "list"]
SEED_MODES: tuple[SeedMode, ...] = ("increment", "random", "list")
#: Seeds run from 0 to this.
MOST = 2**64 - 1
#: Drawn seeds have at most this many bits. A browser's numbers are doubles: they hold whole numbers exactly up to
#: 2**53, and ComfyUI's frontend lets nobody type more than 2**50 into a widget.
DRAWN_BITS = 50


@dataclass(frozen=True, slots=True)
class Seeds:
    """An order of different seeds. A longer run starts with the seeds of a shorter one.

    Attributes:
        start: The first seed, 0 to 2**64 − 1; not used by ``list``.
        mode: ``increment`` counts up by one and starts again at 0 behind the highest; ``random`` goes on from ``start``
            with numbers below 2**50 that ``start`` alone decides; ``list`` takes the listed ones.
        listed: The seeds of ``list``. One that is named twice is tried once.
    """

    start: int = 0
    mode: SeedMode = "increment"
    listed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in SEED_MODES:
            raise BadInput(f"a seed mode of {', '.join(SEED_MODES)}", repr(self.mode), "Choose one of them.")
        if self.mode == "list" and not self.listed:
            raise BadInput("at least one seed in the list", "none", "Write for example: 7, 11, 42")
        for seed in (self.start, *self.listed):
            if not 0 <= seed <= MOST:
                raise BadInput(f"seeds from 0 to {MOST}", str(seed), "Take another seed.")

    def first(self, count: int) -> list[int]:
        """The first ``count`` seeds; fewer where the list is shorter."""
        return list(islice(self._order(), count))

    def _order(self) -> Iterator[int]:
        if self.mode == "list":
            yield from dict.fromkeys(self.listed)
            return
        if self.mode == "increment":
            for step in range(MOST + 1):
                yield (self.start + step) % (MOST + 1)
            return
        numbers, seen = random.Random(self.start), {self.start}
        yield self.start
        while True:
            seed = numbers.getrandbits(DRAWN_BITS)
            if seed not in seen:
                seen.add(seed)
                yield seed


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds in a text, apart by commas, semicolons or white space.

    Raises:
        BadInput: something that is no whole number.
    """
    words: Sequence[str] = [word for word in re.split(r"[\s,;]+", text) if word]
    for word in words:
        if not re.fullmatch(r"\d+", word, re.ASCII):
            raise BadInput("whole numbers as seeds, apart by commas", repr(word), "Write for example: 7, 11, 42")
    return tuple(int(word) for word in words)
