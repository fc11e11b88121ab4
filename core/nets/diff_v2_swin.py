"""Swin blocks (Liu et al., "Swin Transformer", ICCV 2021, arXiv 2103.14030) on a square grid of places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SwinStage(nn.Module):
    """Blocks whose windows are shifted in every other one, a convolution, and a share of that added to the input.

    Args:
        width: Channels.
        grid: Side of the grid.
        window: Side of a window; divides ``grid``.
        heads: Of the attention; divide ``width``.
        depth: Blocks.
        hidden: Units of the blocks' MLPs.
        share: How much of the stage is added to its input.
        ops: A namespace with ``Linear``, ``LayerNorm`` and ``Conv2d``.
    """

    def __init__(
        self,
        width: int,
        grid: int,
        *,
        window: int = 4,
        heads: int = 4,
        depth: int = 2,
        hidden: int = 768,
        share: float = 0.8,
        ops: Any = nn,
    ) -> None:
        super().__init__()
        shifts = [window // 2 if place % 2 and window < grid else 0 for place in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(width, grid, window, heads, hidden, shift, ops) for shift in shifts)
        self.conv = ops.Conv2d(width, width, 3, padding=1)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, grid, grid] → the same shape."""
        found = x.movedim(1, -1)
        for block in self.blocks:
            found = block(found)
        return x + self.share * self.conv(found.movedim(-1, 1))


class SwinBlock(nn.Module):
    """Attention within windows, then an MLP, both normalised before and added; see :class:`SwinStage`."""

    pairs: Tensor
    mask: Tensor

    def __init__(self, width: int, grid: int, window: int, heads: int, hidden: int, shift: int, ops: Any = nn) -> None:
        super().__init__()
        self.window, self.heads, self.shift = window, heads, shift
        self.norm1, self.norm2 = ops.LayerNorm(width), ops.LayerNorm(width)
        self.qkv, self.out = ops.Linear(width, 3 * width), ops.Linear(width, width)
        self.fc1, self.fc2 = ops.Linear(width, hidden), ops.Linear(hidden, width)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("pairs", _pairs(window), persistent=False)
        self.register_buffer("mask", _mask(grid, window, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, grid, grid, width] → the same shape."""
        x = x + self._attend(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        rows, side, _, width = x.shape
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        parts = to_windows(x, self.window)
        q, k, v = self.qkv(parts).view(*parts.shape[:2], 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        added = self.bias[self.pairs].permute(2, 0, 1) + self.mask[:, None]
        added = added.to(q.dtype).repeat(rows, 1, 1, 1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=added).transpose(1, 2).reshape(parts.shape)
        x = from_windows(self.out(found), self.window, side)
        return torch.roll(x, (self.shift, self.shift), dims=(1, 2)) if self.shift else x


def to_windows(x: Tensor, window: int) -> Tensor:
    """[N, side, side, C] → [N · windows, window², C], a picture's windows together, row after row."""
    rows, side, _, width = x.shape
    count = side // window
    parts = x.reshape(rows, count, window, count, window, width).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(-1, window * window, width)


def from_windows(parts: Tensor, window: int, side: int) -> Tensor:
    """The inverse of :func:`to_windows`."""
    count, width = side // window, parts.shape[-1]
    x = parts.reshape(-1, count, count, window, window, width).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, side, side, width)


def _pairs(window: int) -> Tensor:
    """[window², window²] number of the step from one place to another, out of (2 · window - 1)²."""
    at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    step = at[:, :, None] - at[:, None, :] + window - 1
    return step[0] * (2 * window - 1) + step[1]


def _mask(grid: int, window: int, shift: int) -> Tensor:
    """[windows, window², window²]: -100 between places that only the roll has brought into one window, else 0."""
    edge = torch.zeros(grid, dtype=torch.long)
    if shift:
        edge[grid - window : grid - shift] = 1
        edge[grid - shift :] = 2
    regions = to_windows((3 * edge[:, None] + edge[None, :]).float()[None, :, :, None], window)[..., 0]
    return -100.0 * (regions[:, :, None] != regions[:, None, :]).float()
