"""A picture in overlapping tiles that fade into each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows ``top`` to ``bottom`` - 1 and columns ``left`` to ``right`` - 1."""

    top: int
    bottom: int
    left: int
    right: int

    def take(self, whole: Tensor) -> Tensor:
        """The tile of [N, C, H, W]."""
        return whole[..., self.top : self.bottom, self.left : self.right]


def place_tiles(height: int, width: int, side: int, overlap: int, stride: int) -> list[Tile]:
    """Tiles of at most ``side`` pixels a side whose edges lie on multiples of ``stride``, as both sides must.

    Neighbours share ``overlap`` pixels or more.
    """
    rows, columns = (_starts(size, side, overlap, stride) for size in (height, width))
    tall, wide = min(side, height), min(side, width)
    return [Tile(top, top + tall, left, left + wide) for top in rows for left in columns]


def _starts(size: int, side: int, overlap: int, stride: int) -> list[int]:
    if size <= side:
        return [0]
    count = 1 + -(-(size - side) // (side - overlap))
    return [(size - side) * place // (count - 1) // stride * stride for place in range(count)]


def feathered(whole: Tensor, tiles: list[Tile], overlap: int, work: Callable[[Tile], Tensor]) -> Tensor:
    """``work`` over every tile, put together as one like ``whole`` [N, C, H, W].

    The outer quarter of an overlap counts nothing, since a tile knows too little there; towards its inner quarter the
    tile fades in. At the picture's own edges nothing fades.
    """
    if len(tiles) == 1:
        return work(tiles[0])
    height, width = whole.shape[-2:]
    total = torch.zeros_like(whole)
    shares = whole.new_zeros((height, width))
    for tile in tiles:
        weight = _ramp(tile.top, tile.bottom, height, overlap, whole)[:, None]
        weight = weight * _ramp(tile.left, tile.right, width, overlap, whole)
        tile.take(total).add_(work(tile) * weight)
        tile.take(shares).add_(weight)
    return total / shares


def _ramp(start: int, stop: int, size: int, overlap: int, like: Tensor) -> Tensor:
    """Weights [stop - start] of a tile along one side."""
    at = torch.arange(start, stop, device=like.device, dtype=like.dtype) + 0.5
    margin, fade = overlap / 4, max(1.0, overlap / 2)
    weight = torch.ones_like(at)
    if start > 0:
        weight = torch.minimum(weight, (at - start - margin) / fade)
    if stop < size:
        weight = torch.minimum(weight, (stop - at - margin) / fade)
    return weight.clamp(0.0, 1.0)
