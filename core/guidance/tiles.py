"""A latent in overlapping tiles, for when not even one picture's decoder and backward fit in memory.

An approximation: a decoder's normalisation and attention see a tile instead of the whole, and psi sees its edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: Cells around a tile that are decoded with it and then dropped.
OVERLAP = 4
#: Tiles of fewer cells a side say too little of a picture to be worth it.
LEAST = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile; (top, bottom, left, right) in latent cells.

    Attributes:
        grid: Height and width of the whole latent.
        inner: What the tile stands for; the inner parts cover the latent once.
        outer: The same with its overlap.
    """

    grid: tuple[int, int]
    inner: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]

    def take_outer(self, latents: Tensor) -> Tensor:
        """The part of whole latents [N, C, h, w] that is decoded."""
        top, bottom, left, right = self.outer
        return latents[..., top:bottom, left:right]

    def take_inner(self, whole: Tensor) -> Tensor:
        """The part of whole pictures or latents that counts."""
        scale = whole.shape[-2] // self.grid[0]
        top, bottom, left, right = (scale * edge for edge in self.inner)
        return whole[..., top:bottom, left:right]

    def drop_overlap(self, part: Tensor) -> Tensor:
        """What was computed of the outer part → what counts of it."""
        scale = part.shape[-2] // (self.outer[1] - self.outer[0])
        top, bottom = (scale * (edge - self.outer[0]) for edge in self.inner[:2])
        left, right = (scale * (edge - self.outer[2]) for edge in self.inner[2:])
        return part[..., top:bottom, left:right]


def tiles(height: int, width: int, side: int) -> list[Tile]:
    """Tiles of at most ``side`` cells a side, without their overlap, of nearly equal sizes."""
    found = []
    for top, bottom in _cut(height, side):
        for left, right in _cut(width, side):
            outer = (
                max(0, top - OVERLAP),
                min(height, bottom + OVERLAP),
                max(0, left - OVERLAP),
                min(width, right + OVERLAP),
            )
            found.append(Tile((height, width), (top, bottom, left, right), outer))
    return found


def smaller(side: int | None, height: int, width: int) -> int | None:
    """The next smaller side to try after ``side`` (``None``: after the whole latent); ``None`` when it is too small."""
    half = (max(height, width) if side is None else side) // 2
    return half if half >= LEAST else None


def _cut(size: int, side: int) -> list[tuple[int, int]]:
    count = -(-size // side)
    edges = [size * place // count for place in range(count + 1)]
    return list(pairwise(edges))
