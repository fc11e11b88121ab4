"""EfficientNet (Tan and Le 2019, arXiv 1905.11946) without its classifier, under torchvision's parameter names.

Written from the paper's table and scaling rule; the names let state dicts of torchvision's models load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

#: (expansion, kernel, stride, channels, repeats) of B0's stages.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_STEM, _HEAD = 32, 4


@dataclass(frozen=True, slots=True)
class Scaling:
    """How much wider and deeper than B0, and the epsilon of its batch norms (1e-3 from B5 on)."""

    width: float = 2.0
    depth: float = 3.1
    epsilon: float = 1e-3


B7 = Scaling()


def _channels(wide: int, factor: float) -> int:
    """Scaled and rounded to eights, never down by more than a tenth."""
    scaled = wide * factor
    found = max(8, int(scaled + 4) // 8 * 8)
    return found + 8 if found < 0.9 * scaled else found


def _conv(
    wide_in: int, wide: int, kernel: int, stride: int, epsilon: float, *, groups: int = 1, act: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(wide_in, wide, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(wide, eps=epsilon),
    ]
    return nn.Sequential(*layers, nn.SiLU()) if act else nn.Sequential(*layers)


class _Squeeze(nn.Module):
    def __init__(self, wide: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(wide, inner, 1), nn.Conv2d(inner, wide, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w], same shape."""
        gate = self.fc2(nn.functional.silu(self.fc1(x.mean(dim=(-2, -1), keepdim=True))))
        return x * gate.sigmoid()


class _Bottleneck(nn.Module):
    def __init__(self, wide_in: int, wide: int, expand: int, kernel: int, stride: int, epsilon: float) -> None:
        super().__init__()
        inner = wide_in * expand
        layers: list[nn.Module] = [_conv(wide_in, inner, 1, 1, epsilon)] if expand > 1 else []
        layers.append(_conv(inner, inner, kernel, stride, epsilon, groups=inner))
        layers.append(_Squeeze(inner, max(1, wide_in // 4)))
        layers.append(_conv(inner, wide, 1, 1, epsilon, act=False))
        self.block, self.shortcut = nn.Sequential(*layers), stride == 1 and wide_in == wide

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] → [N, C', h', w']."""
        return x + self.block(x) if self.shortcut else self.block(x)


class EfficientNet(nn.Module):
    """The feature network; ``channels`` of its last map, whose stride is 32."""

    def __init__(self, scaling: Scaling = B7) -> None:
        super().__init__()
        eps, wide = scaling.epsilon, _channels(_STEM, scaling.width)
        parts: list[nn.Module] = [_conv(3, wide, 3, 2, eps)]
        for expand, kernel, stride, channels, repeats in _STAGES:
            out, blocks = _channels(channels, scaling.width), []
            for place in range(math.ceil(repeats * scaling.depth)):
                blocks.append(_Bottleneck(wide, out, expand, kernel, stride if place == 0 else 1, eps))
                wide = out
            parts.append(nn.Sequential(*blocks))
        self.channels = _HEAD * wide
        parts.append(_conv(wide, self.channels, 1, 1, eps))
        self.features = nn.Sequential(*parts)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] → the last map [N, channels, H/32, W/32]."""
        return self.features(pixels)
