"""The conditional U-Net of a pixel-space restorer: the damaged picture and a noisy one in, what the noise hides out.

SR3's kind of network (Saharia et al., 2021, arXiv 2104.07636), in the sizes that DiffV2IQA publishes (Wang et al.,
2024, arXiv 2402.14401): a DDPM U-Net from 6 to 3 channels that is told the continuous noise level. Built from the
papers, not by their authors. How the level is embedded is open; here as sines of the angle whose cosine is
sqrt(alpha_bar), by which each block is scaled and shifted. Pictures lie in [-1, 1] here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput

#: Frequencies of the level's embedding run from 1 to this, in half turns.
_HIGHEST = 32.0


@dataclass(frozen=True, slots=True)
class RestorerShape:
    """Sizes; the defaults are the published ones.

    Attributes:
        inner: Channels of the first level.
        multipliers: Channels of each level over ``inner``; from one to the next the sides are halved.
        blocks: Residual blocks of a level on the way down; one more on the way up.
        attention: Sides at which a level attends to itself, counted for pictures of ``native`` pixels a side.
        native: Side of the training crops.
        dropout: In every block, while training.
        groups: Of the group norms. 0: nothing is normed, so that no pixel knows of one beyond the reach of the
            convolutions, and tiles change nothing (ours, for pictures larger than the crops).
        middle: Whether the lowest level has two more blocks, with attention between them where ``attention`` is not
            empty.
        patch: Side of the squares of pixels that are folded into channels first; published: 1 (none).
        predicts: ``eps`` as published, or ``clean``: the picture itself, as a change of the damaged one (ours; it
            begins as the identity, and few steps are enough).
        residual: How far, as a root mean square, damaged and clean pictures lie apart. The network then sees of the
            noisy picture only what :meth:`RestorerNet.hint` leaves; 0 as published: the noisy picture itself.
    """

    inner: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 8)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    native: int = 64
    dropout: float = 0.2
    groups: int = 32
    middle: bool = True
    patch: int = 1
    predicts: Literal["eps", "clean"] = "eps"
    residual: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.inner, self.blocks, self.native, self.patch, *self.multipliers)
        grouped = not self.groups or all(self.inner * times % self.groups == 0 for times in self.multipliers)
        if not self.multipliers or min(sizes) < 1 or self.inner % 2 or self.groups < 0 or not grouped:
            expected = "sizes from 1, an even inner, and channels divisible by the groups"
            raise BadInput(expected, str(self), "Published: inner 64, multipliers 1 2 4 8 8, 2 blocks, 32 groups.")
        if self.native % self.stride:
            expected = f"a native side divisible by {self.stride}, as the levels halve it"
            raise BadInput(expected, str(self.native), "Published: 64.")
        if not 0.0 <= self.dropout < 1.0 or self.predicts not in ("eps", "clean"):
            raise BadInput("a dropout from 0 to below 1, predicting eps or clean", str(self), "Published: .2 and eps.")

    @property
    def stride(self) -> int:
        """Both sides of a picture are made divisible by this."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def reach(self) -> int | None:
        """Pixels beyond which a pixel knows nothing, along each side; ``None`` where norms or attention see all."""
        if self.groups or self.attention:
            return None
        cells, levels = 2, len(self.multipliers)  # first and last convolution
        for level in range(levels):
            last = level == levels - 1
            convolutions = 2 * (2 * self.blocks + 1) + (4 * self.middle if last else 2)
            cells += convolutions * 2**level
        return (cells + 2 ** (levels - 1)) * self.patch

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "multipliers": list(self.multipliers), "attention": list(self.attention)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> RestorerShape:
        """The inverse of :meth:`to_dict`."""
        lists = {name: tuple(told[name]) for name in ("multipliers", "attention")}
        return cls(**{**told, **lists})


#: Small enough to ship and to train on a CPU; trained in this project.
NARROW = RestorerShape(8, (2, 3, 4), 1, (), 64, 0.0, 0, False, 2, "clean", 0.33)


class RestorerNet(nn.Module):
    """The U-Net.

    Args:
        shape: Sizes.
    """

    def __init__(self, shape: RestorerShape) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.inner * times for times in shape.multipliers]
        told = 4 * shape.inner
        self.level = nn.Sequential(nn.Linear(shape.inner, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.first = nn.Conv2d(6 * shape.patch**2, widths[0], 3, padding=1)
        kept, width = [widths[0]], widths[0]
        self.down = nn.ModuleList()
        for place, wide in enumerate(widths):
            for _ in range(shape.blocks):
                self.down.append(_Block(width, wide, told, shape, self._attends(place)))
                width = wide
                kept.append(width)
            if place < len(widths) - 1:
                self.down.append(_Down(width))
                kept.append(width)
        self.middle = nn.ModuleList()
        if shape.middle:
            self.middle.append(_Block(width, width, told, shape, bool(shape.attention)))
            self.middle.append(_Block(width, width, told, shape, False))
        self.up = nn.ModuleList()
        for place, wide in reversed(list(enumerate(widths))):
            for _ in range(shape.blocks + 1):
                self.up.append(_Block(width + kept.pop(), wide, told, shape, self._attends(place)))
                width = wide
            if place:
                self.up.append(_Up(width))
        activation = nn.SiLU() if shape.groups else nn.Identity()
        self.last = nn.Sequential(_norm(width, shape), activation, nn.Conv2d(width, 3 * shape.patch**2, 3, padding=1))
        final = self.last[-1]
        assert isinstance(final, nn.Conv2d)
        nn.init.zeros_(final.weight)
        nn.init.zeros_(final.bias if final.bias is not None else torch.empty(0))

    def _attends(self, place: int) -> bool:
        shape = self.shape
        return shape.native // shape.patch // 2**place in shape.attention

    def forward(self, condition: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """What the network itself gives, [N, 3, H, W]: eps, or the change from the condition to the clean picture.

        Args:
            condition: Damaged pictures [N, 3, H, W] in [-1, 1], sides divisible by the shape's stride.
            noisy: signal · clean + sqrt(1 - signal²) · noise, same shape.
            signal: sqrt(alpha_bar) of each row [N], in [0, 1].
        """
        shape = self.shape
        told = self.level(level_embedding(signal, shape.inner).to(noisy.dtype))
        x = torch.cat([condition, self.hint(condition, noisy, signal) if shape.residual else noisy], 1)
        x = self.first(F.pixel_unshuffle(x, shape.patch) if shape.patch > 1 else x)
        kept = [x]
        for layer in self.down:
            x = layer(x, told)
            kept.append(x)
        for layer in self.middle:
            x = layer(x, told)
        for layer in self.up:
            x = layer(x, told) if isinstance(layer, _Up) else layer(torch.cat([x, kept.pop()], 1), told)
        x = self.last(x)
        return F.pixel_shuffle(x, shape.patch) if shape.patch > 1 else x

    def hint(self, condition: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """What the noisy picture says beyond the damaged one, [N, 3, H, W]; nothing where it is all noise.

        The two are taken for independent measurements of the clean picture, off by noise / signal and by
        ``residual``: this is what leads from the damaged one to their best linear estimate.
        """
        rows = _per_row(signal)
        trust = self.shape.residual**2 * rows**2
        trust = trust / (trust + (1.0 - rows**2).clamp_min(0.0))
        return trust.to(noisy.dtype) * (noisy / rows.clamp_min(1e-4).to(noisy.dtype) - condition)

    def clean(self, condition: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """The clean estimate [N, 3, H, W], not clamped; arguments as of :meth:`forward`."""
        found = self(condition, noisy, signal).to(noisy.dtype)
        if self.shape.predicts == "clean":
            return condition + found
        rows = _per_row(signal)
        return ((noisy - (1.0 - rows**2).clamp_min(0.0).sqrt() * found) / rows).to(noisy.dtype)


def _per_row(signal: Tensor) -> Tensor:
    """[N, 1, 1, 1] in single precision or better: in half, 1 - signal² is nothing where little noise is left."""
    return signal.to(torch.promote_types(signal.dtype, torch.float32)).view(-1, 1, 1, 1)


def level_embedding(signal: Tensor, width: int) -> Tensor:
    """Sines and cosines of the noise level's angle arccos(signal) [N] → [N, width], ``width`` even."""
    half = width // 2
    rates = _HIGHEST ** (torch.arange(half, device=signal.device, dtype=torch.float32) / max(1, half - 1))
    turns = torch.arccos(signal.float().clamp(0.0, 1.0))[:, None] * rates
    return torch.cat([turns.sin(), turns.cos()], 1)


def build(shape: RestorerShape, seed: int = 0) -> RestorerNet:
    """A network of random weights, the same for one seed; nobody's random numbers move."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RestorerNet(shape)


def _norm(channels: int, shape: RestorerShape) -> nn.Module:
    # What is joined on the way up may not be divisible by the groups: the largest number that divides both.
    return nn.GroupNorm(math.gcd(shape.groups, channels), channels) if shape.groups else nn.Identity()


class _Block(nn.Module):
    """Norm, convolution, the level's scale and shift, norm, dropout, convolution; added to the input; attention."""

    def __init__(self, channels: int, out: int, told: int, shape: RestorerShape, attends: bool) -> None:
        super().__init__()
        self.before, self.after = _norm(channels, shape), _norm(out, shape)
        self.one = nn.Conv2d(channels, out, 3, padding=1)
        self.two = nn.Conv2d(out, out, 3, padding=1)
        self.tell = nn.Linear(told, 2 * out)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.dropout = nn.Dropout(shape.dropout)
        self.attention = _Attention(out, shape) if attends else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.tell(told)[:, :, None, None].chunk(2, 1)
        inner = self.one(F.silu(self.before(x)))
        inner = self.after(inner) * (1.0 + scale) + shift
        return self.attention(self.skip(x) + self.two(self.dropout(F.silu(inner))))


class _Attention(nn.Module):
    """Every place attends to every place, one head; added to the input."""

    def __init__(self, channels: int, shape: RestorerShape) -> None:
        super().__init__()
        self.norm = _norm(channels, shape)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None]
        found = F.scaled_dot_product_attention(*rows.chunk(3, -1))
        return x + self.out(found[:, 0].transpose(1, 2).reshape(x.shape))


class _Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return self.convolution(x)


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))
