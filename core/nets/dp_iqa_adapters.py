"""DP-IQA's two adapters: of the text sequence, and of the image into the U-Net's down blocks.

After the facts of DP-IQA (2024, arXiv 2405.19996), reimplemented, not by its authors; the image adapter is a
T2I-adapter (Mou et al. 2023, arXiv 2302.08453) at the sizes of its "full" form. Parameters carry the names of the
published files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Published: what the text adapter's change is multiplied by before training.
GAMMA = 1e-4


class TextAdapter(nn.Module):
    """T + gamma · MLP(T), each token by itself.

    Args:
        width: Of a token.
        hidden: Of the MLP; the published one is as wide as the token.
        ops: A namespace with ``Linear``.
    """

    def __init__(self, width: int, hidden: int | None = None, ops: Any = nn) -> None:
        super().__init__()
        inner = hidden or width
        self.gamma = nn.Parameter(torch.full((width,), GAMMA))
        self.fc = nn.Sequential(ops.Linear(width, inner), nn.GELU(), ops.Linear(inner, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [..., width] → tokens."""
        return tokens + self.gamma.to(tokens) * self.fc(tokens)


class _Residual(nn.Module):
    """x + block2(relu(block1(x)))."""

    def __init__(self, channels: int, ops: Any) -> None:
        super().__init__()
        self.block1 = ops.Conv2d(channels, channels, 3, padding=1)
        self.block2 = ops.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w], same shape."""
        return x + self.block2(F.relu(self.block1(x)))


class _Level(nn.Module):
    """Halve (all levels but the first), change the channels where they differ, residual blocks."""

    def __init__(self, wide_in: int, wide: int, blocks: int, halves: bool, ops: Any) -> None:
        super().__init__()
        self.halves = halves
        self.in_conv = ops.Conv2d(wide_in, wide, 1) if wide_in != wide else None
        self.resnets = nn.ModuleList(_Residual(wide, ops) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] → [N, C', h', w']."""
        if self.halves:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True)
        if self.in_conv is not None:
            x = self.in_conv(x)
        for block in self.resnets:
            x = block(x)
        return x


class ImageAdapter(nn.Module):
    """Pixels → one residual for every down level, finest first.

    Args:
        channels: Of the down levels.
        factor: Pixels per latent pixel.
        width: Channels inside; the levels' own when left out, as published. A narrow one gets a 1×1 convolution per
            level that starts at zero, so that training begins at the unchanged model.
        blocks: Residual blocks a level.
        ops: A namespace with ``Conv2d``.
    """

    def __init__(
        self, channels: Sequence[int], factor: int = 8, width: int | None = None, blocks: int = 2, ops: Any = nn
    ) -> None:
        super().__init__()
        inner = [width or wide for wide in channels]
        self.factor = factor
        self.conv_in = ops.Conv2d(3 * factor**2, inner[0], 3, padding=1)
        pairs = zip([inner[0], *inner[:-1]], inner, strict=True)
        self.body = nn.ModuleList(_Level(a, b, blocks, place > 0, ops) for place, (a, b) in enumerate(pairs))
        self.out = nn.ModuleList(ops.Conv2d(width, wide, 1) for wide in channels) if width else None
        if self.out is not None:
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels [N, 3, H, W] in [0, 1], sides divisible by ``factor`` → residuals [N, C, h, w] of every level."""
        x = self.conv_in(F.pixel_unshuffle(pixels, self.factor))
        found = []
        for level in self.body:
            x = level(x)
            found.append(x)
        return tuple(found) if self.out is None else tuple(o(x) for o, x in zip(self.out, found, strict=True))
