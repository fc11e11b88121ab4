"""DP-IQA's quality feature decoder: the up blocks' features → a map of eight channels → a score.

After the facts of DP-IQA (2024, arXiv 2405.19996), reimplemented, not by its authors. Published: 512 channels, maps of
64², 1×1 convolutions to 128, 32 and 8, the whole map flattened. Smaller shapes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder; the defaults are the published ones.

    Attributes:
        channels: Of the maps that it reads, in the order of the up levels.
        width: Channels of each map after its convolution, and after joining.
        kernel: Of the convolution of each map, and of the one that joins them.
        squeeze: Of the squeeze-excitations; 0 leaves them out.
        squeeze_bias: Whether their linear layers have a bias.
        thin: Channels of the 1×1 convolutions; the last is the map's.
        grid: Side of the maps.
        cells: Side of what is flattened; the map is averaged down to it.
        hidden: Units of the two hidden layers.
    """

    channels: tuple[int, ...]
    width: int = 512
    kernel: int = 3
    squeeze: int = 16
    squeeze_bias: bool = False
    thin: tuple[int, ...] = (128, 32, 8)
    grid: int = 64
    cells: int = 64
    hidden: int = 512

    def __post_init__(self) -> None:
        sizes = (*self.channels, self.width, *self.thin, self.grid, self.cells, self.hidden)
        if not self.channels or not self.thin or min(sizes) < 1 or self.grid % self.cells or self.kernel not in (1, 3):
            raise BadInput("sizes from 1, a grid divisible by its cells, a kernel of 1 or 3", str(self), "Change them.")
        if self.squeeze < 0 or (self.squeeze and self.width < self.squeeze):
            raise BadInput(f"a squeeze from 0 to {self.width}", str(self.squeeze), "Published: 16.")

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "channels": list(self.channels), "thin": list(self.thin)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> DecoderShape:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**told, "channels": tuple(told["channels"]), "thin": tuple(told["thin"])})


def to_grid(values: Tensor, side: int) -> Tensor:
    """A map [N, C, h, w] → [N, C, side, side], bicubic; antialiased where it gets smaller."""
    if values.shape[-2:] == (side, side):
        return values.float()
    smaller = max(values.shape[-2:]) > side
    return F.interpolate(values.float(), size=(side, side), mode="bicubic", antialias=smaller)


class SqueezeExcite(nn.Module):
    """Channels times a gate from their means (Hu et al. 2018)."""

    def __init__(self, channels: int, squeeze: int, bias: bool, ops: Any) -> None:
        super().__init__()
        inner = channels // squeeze
        self.fc = nn.Sequential(
            ops.Linear(channels, inner, bias=bias), nn.ReLU(), ops.Linear(inner, channels, bias=bias), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w], same shape."""
        return x * self.fc(x.mean(dim=(-2, -1)))[:, :, None, None]


class QualityDecoder(nn.Module):
    """Maps on one grid → (score in about [0, 1], quality map).

    ``centre`` and ``scale`` bring each channel to unit spread; 0 and 1, as published, unless training sets them.
    """

    #: Largest activations beside the input, in units of its bytes. Measured on a CPU at the published sizes, float32:
    #: the process's peak grew by 3.4 of them for one row, 2.6 for two.
    activations = 4.0

    def __init__(self, shape: DecoderShape, ops: Any = nn) -> None:
        super().__init__()
        self.shape = shape
        pad, joined = shape.kernel // 2, shape.width * len(shape.channels)
        for place, channels in enumerate(shape.channels, 1):
            self.register_module(f"conv{place}", ops.Conv2d(channels, shape.width, shape.kernel, padding=pad))
            self.register_module(f"se{place}", _gate(shape, ops))
            self.register_buffer(f"centre{place}", torch.zeros(channels))
            self.register_buffer(f"scale{place}", torch.ones(channels))
        self.fuse_conv = ops.Conv2d(joined, shape.width, shape.kernel, padding=pad)
        self.se_fuse = _gate(shape, ops)
        for place, (a, b) in enumerate(zip([shape.width, *shape.thin[:-1]], shape.thin, strict=True), 1):
            self.register_module(f"conv_score{place}", ops.Conv2d(a, b, 1))
        self.fc1 = ops.Linear(shape.thin[-1] * shape.cells**2, shape.hidden)
        self.fc2 = ops.Linear(shape.hidden, shape.hidden)
        self.fc3 = ops.Linear(shape.hidden, 1)

    @torch.no_grad()
    def standardise(self, means: Sequence[Tensor], deviations: Sequence[Tensor]) -> None:
        """Set ``centre`` and ``scale`` from what the training pictures show."""
        for place, (mean, deviation) in enumerate(zip(means, deviations, strict=True), 1):
            self.get_buffer(f"centre{place}").copy_(mean)
            self.get_buffer(f"scale{place}").copy_(1.0 / deviation.clamp_min(1e-4))

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [N, C, grid, grid], one for each up level (:func:`to_grid`) → scores [N], quality maps [N, c, g, g]."""
        parts = [self._level(place, values) for place, values in enumerate(maps, 1)]
        x = self.se_fuse(self.fuse_conv(torch.cat(parts, dim=1)))
        for place in range(1, len(self.shape.thin) + 1):
            x = F.relu(self.get_submodule(f"conv_score{place}")(x))
        step = self.shape.grid // self.shape.cells
        flat = (F.avg_pool2d(x, step) if step > 1 else x).flatten(1)
        hidden = F.relu(self.fc2(F.relu(self.fc1(flat))))
        return self.fc3(hidden)[:, 0], x

    def _level(self, place: int, values: Tensor) -> Tensor:
        centre, scale = (self.get_buffer(f"{name}{place}").to(values)[:, None, None] for name in ("centre", "scale"))
        x = self.get_submodule(f"conv{place}")((values - centre) * scale)
        return self.get_submodule(f"se{place}")(x)


def _gate(shape: DecoderShape, ops: Any) -> nn.Module:
    return SqueezeExcite(shape.width, shape.squeeze, shape.squeeze_bias, ops) if shape.squeeze else nn.Identity()
