"""DP-IQA's student: EfficientNet-B7 → a map of eight channels, trained towards the teacher's → a score.

After the facts of DP-IQA (2024, arXiv 2405.19996), reimplemented, not by its authors. The stride of the transposed
convolution is not published: 2 here, before the map is brought to 64² anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .efficientnet import B7, EfficientNet, Scaling


@dataclass(frozen=True, slots=True)
class StudentShape:
    """Sizes; the defaults are the published ones, but for ``kernel`` (3 gives the published 81.0 M parameters).

    Attributes:
        scaling: Of the EfficientNet.
        channels: Of the map.
        kernel: Of the transposed convolution.
        grid: Side of the map.
        hidden: Units of the two hidden layers.
    """

    scaling: Scaling = B7
    channels: int = 8
    kernel: int = 3
    grid: int = 64
    hidden: int = 512


class StudentNetwork(nn.Module):
    """Pixels → (scores in about [0, 1], maps)."""

    def __init__(self, shape: StudentShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or StudentShape()
        self.base_model = EfficientNet(shape.scaling)
        self.conv_transpose = nn.ConvTranspose2d(
            self.base_model.channels, shape.channels, shape.kernel, stride=2, padding=(shape.kernel - 1) // 2
        )
        self.fc1 = nn.Linear(shape.channels * shape.grid**2, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, shape.hidden)
        self.fc3 = nn.Linear(shape.hidden, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N, 3, H, W] in [0, 1] → scores [N], maps [N, channels, grid, grid]."""
        quality = F.interpolate(self.conv_transpose(self.base_model(pixels)), size=(self.shape.grid,) * 2)
        hidden = F.relu(self.fc2(F.relu(self.fc1(quality.flatten(1)))))
        return self.fc3(hidden)[:, 0], quality
