"""ResNet with bottlenecks (He et al., 2016, arXiv 1512.03385): pixels → the classifier's outputs.

Names of the weights are torchvision's and timm's, so that their files of ``resnet50`` load as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: ImageNet's, of RGB in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GROWTH = 4


class ResNet(nn.Module):
    """The defaults are ResNet50's.

    Args:
        depths: Bottlenecks of each stage.
        width: Channels of the stem.
        classes: Outputs (published: 1000).
        ops: A namespace with ``Conv2d`` and ``Linear``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, depths: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, classes: int = 1000, ops: Any = nn
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.conv1, self.bn1 = ops.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)
        self.stages, wide = len(depths), width
        for place, depth in enumerate(depths):
            narrow, blocks = width * 2**place, []
            for number in range(depth):
                blocks.append(_Bottleneck(wide, narrow, 2 if place and number == 0 else 1, ops))
                wide = _GROWTH * narrow
            self.add_module(f"layer{place + 1}", nn.Sequential(*blocks))
        self.fc = ops.Linear(wide, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] in [0, 1] → [N, classes]."""
        x = F.relu(self.bn1(self.conv1((pixels - self.mean.to(pixels)) / self.std.to(pixels))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for place in range(self.stages):
            x = self.get_submodule(f"layer{place + 1}")(x)
        return self.fc(x.mean(dim=(2, 3)))


class _Bottleneck(nn.Module):
    def __init__(self, wide_in: int, narrow: int, stride: int, ops: Any) -> None:
        super().__init__()
        wide = _GROWTH * narrow
        self.conv1, self.bn1 = ops.Conv2d(wide_in, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv2 = ops.Conv2d(narrow, narrow, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3, self.bn3 = ops.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide)
        changed = stride > 1 or wide_in != wide
        shortcut = [ops.Conv2d(wide_in, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide)]
        self.downsample = nn.Sequential(*shortcut) if changed else None

    def forward(self, x: Tensor) -> Tensor:
        found = F.relu(self.bn1(self.conv1(x)))
        found = F.relu(self.bn2(self.conv2(found)))
        found = self.bn3(self.conv3(found))
        return F.relu(found + (x if self.downsample is None else self.downsample(x)))
