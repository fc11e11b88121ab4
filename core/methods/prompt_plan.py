"""Which rows go into which forward: images of one size together, as many rows at once as fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Watch


@dataclass(frozen=True, slots=True)
class Block:
    """Images that are encoded together and share forwards.

    Attributes:
        size: Height and width in pixels.
        places: The images' places in the batch.
        forwards: (first, last + 1) of the rows of each forward; an image's rows are neighbours.
        done: To be called after each forward.
    """

    size: tuple[int, int]
    places: tuple[int, ...]
    forwards: tuple[tuple[int, int], ...]
    done: Callable[[], None]


class _Counter:
    """Counts forwards for a watch."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch, self.total, self._done = watch, 0, 0

    def __call__(self) -> None:
        self._done += 1
        if self.watch is not None:
            self.watch(self._done, self.total)


def plan_blocks(
    sizes: Mapping[int, tuple[int, int]],
    *,
    rows_an_image: int,
    rows_that_fit: Callable[[tuple[int, int]], int],
    watch: Watch | None = None,
) -> list[Block]:
    """Blocks in the order of first appearance of each size.

    Args:
        sizes: Each image's place and the size it is scored at.
        rows_an_image: Prompts × noise levels.
        rows_that_fit: Rows of one forward at this size, at least 1.
        watch: Called with (forwards done, forwards in all).
    """
    counter = _Counter(watch)
    groups: dict[tuple[int, int], list[int]] = {}
    for place, size in sizes.items():
        groups.setdefault(size, []).append(place)
    blocks = []
    for size, places in groups.items():
        fit = rows_that_fit(size)
        together = max(1, fit // rows_an_image)
        for first in range(0, len(places), together):
            mates = places[first : first + together]
            blocks.append(Block(size, tuple(mates), _chunks(len(mates) * rows_an_image, fit), counter))
    counter.total = sum(len(block.forwards) for block in blocks)
    return blocks


def _chunks(rows: int, most: int) -> tuple[tuple[int, int], ...]:
    """As few chunks as ``most`` allows, of nearly equal length."""
    count = -(-rows // most)
    return tuple(pairwise(rows * i // count for i in range(count + 1)))
