"""DiffV2IQA's two branches on features of a picture and of its restorations: VCG and VDA, and their sum.

After the facts of Wang et al., 2024 (arXiv 2402.14401), reimplemented, not by its authors. Features come from frozen
backbones elsewhere. Not read in the authors' code, so inferred: one 1×1 convolution stands before each Swin stage, the
TAB of the VDA takes the rows of its map for channels, that branch's convolution is 3×3, and its scores and weights are
made as the VCG's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput
from .diff_v2_attention import PlaceScores, ResidualTransposedAttention, TransposedAttention
from .diff_v2_swin import SwinStage

Branch = Literal["both", "vcg", "vda"]
BRANCHES: tuple[Branch, ...] = ("both", "vcg", "vda")
#: Which of the input's four maps each restored picture gives: d0 the first two, d1 the third, d2 the fourth.
PLAN: tuple[tuple[int, ...], ...] = ((0, 1), (2,), (3,))


@dataclass(frozen=True, slots=True)
class VcgShape:
    """Sizes of the visual compensation guidance; the defaults are the published ones.

    Attributes:
        maps: Channels of the four maps of the input.
        grid: Side of the maps.
        level_width: Of each of the four learned noise-level vectors.
        widths: Channels of the two Swin stages.
        window, heads, depth, hidden, share: Of the Swin stages, see :class:`~.diff_v2_swin.SwinStage`.
    """

    maps: tuple[int, int, int, int] = (768, 768, 768, 768)
    grid: int = 28
    level_width: int = 192
    widths: tuple[int, int] = (768, 384)
    window: int = 4
    heads: int = 4
    depth: int = 2
    hidden: int = 768
    share: float = 0.8

    @property
    def channels(self) -> int:
        """Of all maps and level vectors together."""
        return 2 * sum(self.maps) + 4 * self.level_width


@dataclass(frozen=True, slots=True)
class VdaShape:
    """Sizes of the visual difference analysis; the defaults are the published ones.

    Attributes:
        features: Length of the backbone's output.
        grid: Side of the map that the RTAB makes.
        width: Channels that the map is brought to.
    """

    features: int = 1000
    grid: int = 28
    width: int = 32


@dataclass(frozen=True, slots=True)
class DiffShape:
    """Sizes of both branches.

    Attributes:
        vcg, vda: Of each.
        branch: Which are there.
        weight: λ in VCG + λ · VDA (published: 5).
        learned: Whether λ is learned, beginning at ``weight``.
    """

    vcg: VcgShape = field(default_factory=VcgShape)
    vda: VdaShape = field(default_factory=VdaShape)
    branch: Branch = "both"
    weight: float = 5.0
    learned: bool = False

    def __post_init__(self) -> None:
        if self.branch not in BRANCHES:
            raise BadInput(f"a branch out of {', '.join(BRANCHES)}", repr(self.branch), "Use one of these names.")
        if not (math.isfinite(self.weight) and self.weight > 0):
            remedy = "Published: 5. For VCG or VDA alone name that branch."
            raise BadInput("a weight of VDA above 0", str(self.weight), remedy)
        vcg = self.vcg
        if vcg.grid % vcg.window or any(width % vcg.heads for width in vcg.widths):
            got = f"grid {vcg.grid}, window {vcg.window}, widths {vcg.widths}, {vcg.heads} heads"
            raise BadInput("windows that tile the grid, heads that divide the widths", got, "Published: 28, 4, 4.")

    @classmethod
    def published(cls, **changes: Any) -> DiffShape:
        """8 · 768 + 4 · 192 channels on 28×28 places, RTAB from 1000 to 784."""
        return cls(**changes)

    @classmethod
    def narrow(cls, maps: Sequence[int], features: int, grid: int = 6, **changes: Any) -> DiffShape:
        """What fits into some ten thousands of weights, on other backbones' features."""
        first, second, third, fourth = maps
        vcg = VcgShape((first, second, third, fourth), grid, 4, (16, 16), window=window_of(grid), heads=2, hidden=32)
        return cls(vcg, VdaShape(features, 4, 8), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> DiffShape:
        """The inverse of :meth:`to_dict`."""
        vcg = {**told["vcg"], "maps": tuple(told["vcg"]["maps"]), "widths": tuple(told["vcg"]["widths"])}
        return cls(**{**told, "vcg": VcgShape(**vcg), "vda": VdaShape(**told["vda"])})


def window_of(grid: int) -> int:
    """The largest side of windows up to 4 that tile the grid; all of it where none does."""
    return next((side for side in (4, 3, 2) if grid % side == 0), grid)


class Places(NamedTuple):
    """A branch's map: scores ≥ 0 and weights with sum 1, both [N, grid, grid]."""

    scores: Tensor
    weights: Tensor

    @property
    def total(self) -> Tensor:
        """[N] Σ score · weight."""
        return (self.scores * self.weights).sum(dim=(1, 2))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the branches say of N pictures; a branch that is not there is ``None``.

    Attributes:
        score: [N] VCG + λ · VDA, about 0…1.
        vcg: Over the picture.
        vda: Over the map that the RTAB makes; its places are none of the picture.
        weight: λ.
    """

    score: Tensor
    vcg: Places | None
    vda: Places | None
    weight: Tensor


class Vcg(nn.Module):
    """Visual compensation guidance: all maps side by side → scores and weights of places."""

    def __init__(self, shape: VcgShape, drop: float = 0.0, ops: Any = nn) -> None:
        super().__init__()
        self.shape, places = shape, shape.grid**2
        swin = {
            "window": shape.window, "heads": shape.heads, "depth": shape.depth, "hidden": shape.hidden,
            "share": shape.share, "ops": ops,
        }  # fmt: skip
        self.levels = nn.Parameter(0.02 * torch.randn(4, shape.level_width))
        self.wide = nn.Sequential(*(TransposedAttention(places, ops) for _ in range(2)))
        self.conv1 = ops.Conv2d(shape.channels, shape.widths[0], 1)
        self.swin1 = SwinStage(shape.widths[0], shape.grid, **swin)
        self.thin = nn.Sequential(*(TransposedAttention(places, ops) for _ in range(2)))
        self.conv2 = ops.Conv2d(shape.widths[0], shape.widths[1], 1)
        self.swin2 = SwinStage(shape.widths[1], shape.grid, **swin)
        self.scores = PlaceScores(shape.widths[1], drop, ops)

    def forward(self, maps: Tensor) -> Places:
        """Eight maps, joined, [N, 2 · Σ maps, grid, grid] → places of the picture."""
        rows, grid = len(maps), self.shape.grid
        levels = self.levels.to(maps).reshape(1, -1, 1, 1).expand(rows, -1, grid, grid)
        x = self.wide(torch.cat([maps, levels], dim=1).flatten(2)).unflatten(2, (grid, grid))
        x = self.swin1(self.conv1(x))
        x = self.swin2(self.conv2(self.thin(x.flatten(2)).unflatten(2, (grid, grid))))
        return Places(*(one.unflatten(1, (grid, grid)) for one in self.scores(x.flatten(2).transpose(1, 2))))


class Vda(nn.Module):
    """Visual difference analysis: what four vectors differ in → scores and weights of places."""

    def __init__(self, shape: VdaShape, drop: float = 0.0, ops: Any = nn) -> None:
        super().__init__()
        self.shape = shape
        self.rtab = ResidualTransposedAttention(shape.features, shape.grid**2, ops)
        self.tab = TransposedAttention(shape.grid, ops)
        self.conv = ops.Conv2d(1, shape.width, 3, padding=1)
        self.scores = PlaceScores(shape.width, drop, ops)

    def forward(self, vectors: Tensor) -> Places:
        """[N, 4, features] of input, d0, d1, d2 → places of the RTAB's map."""
        grid = self.shape.grid
        x = self.tab(self.rtab(*vectors.unbind(1)).unflatten(1, (grid, grid)))
        x = F.relu(self.conv(x[:, None]))
        return Places(*(one.unflatten(1, (grid, grid)) for one in self.scores(x.flatten(2).transpose(1, 2))))


class DiffV2Nets(nn.Module):
    """Both branches, with the scaling of their features: VCG + λ · VDA.

    Args:
        shape: Sizes.
        drop: Share dropped in the places' heads in training.
        ops: A namespace with ``Linear``, ``LayerNorm`` and ``Conv2d``.
    """

    weight: Tensor
    map_centre: Tensor
    map_scale: Tensor
    vector_centre: Tensor
    vector_scale: Tensor

    def __init__(self, shape: DiffShape, drop: float = 0.0, ops: Any = nn) -> None:
        super().__init__()
        self.shape = shape
        self.vcg = None if shape.branch == "vda" else Vcg(shape.vcg, drop, ops)
        self.vda = None if shape.branch == "vcg" else Vda(shape.vda, drop, ops)
        weight = torch.tensor(float(shape.weight))
        if shape.learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        count = sum(shape.vcg.maps)
        for name, size in (("map", count), ("vector", shape.vda.features)):
            self.register_buffer(f"{name}_centre", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def standardise(self, maps: tuple[Tensor, Tensor] | None, vectors: tuple[Tensor, Tensor] | None) -> None:
        """Means and deviations of the inputs' map channels [Σ maps] and vectors [features]; ``None`` leaves them."""
        for name, found in (("map", maps), ("vector", vectors)):
            if found is not None:
                getattr(self, f"{name}_centre").copy_(found[0])
                getattr(self, f"{name}_scale").copy_(found[1].clamp_min(1e-4))

    def begin_at(self, value: float) -> None:
        """Let every place's score begin at this value, both branches giving half of it."""
        shares = 1.0 if self.vcg is None or self.vda is None else 0.5
        with torch.no_grad():
            if self.vcg is not None:
                self.vcg.scores.score_out.bias.fill_(shares * value)
            if self.vda is not None:
                self.vda.scores.score_out.bias.fill_(shares * value / float(self.weight))

    def forward(self, maps: Tensor | None, vectors: Tensor | None) -> Parts:
        """Maps of :func:`joined` [N, 2 · Σ maps, grid, grid], vectors [N, 4, features] → :class:`Parts`."""
        vcg = vda = None
        if self.vcg is not None and maps is not None:
            centre, scale = (self._by_plan(values).to(maps) for values in (self.map_centre, self.map_scale))
            vcg = self.vcg((maps - centre) / scale)
        if self.vda is not None and vectors is not None:
            scaled = (vectors - self.vector_centre.to(vectors)) / self.vector_scale.to(vectors)
            vda = self.vda(scaled)
        told = [] if vcg is None else [vcg.total]
        told += [] if vda is None else [self.weight.to(vda.total) * vda.total]
        return Parts(torch.stack(told).sum(dim=0), vcg, vda, self.weight)

    def _by_plan(self, values: Tensor) -> Tensor:
        """One value a channel of the input's maps → one a channel of all eight."""
        parts = values.split(list(self.shape.vcg.maps))
        restored = [parts[place] for places in PLAN for place in places]
        return torch.cat([*parts, *restored]).view(1, -1, 1, 1)


def joined(given: Sequence[Tensor], restored: Sequence[Sequence[Tensor]]) -> Tensor:
    """The input's four maps, and those that :data:`PLAN` takes of d0, d1, d2 → [N, 2 · Σ maps, grid, grid]."""
    return torch.cat([*given, *(values for of_one in restored for values in of_one)], dim=1)
