"""A plain vision transformer (Dosovitskiy et al., 2021, arXiv 2010.11929) whose blocks' outputs are taken as maps.

Names of the weights are timm's, so that its files of ``vit_base_patch8_224`` and the like load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Of normalisation in timm's vision transformers.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class VitShape:
    """Sizes; the defaults are those of ViT-B/8-224 (published).

    Attributes:
        side: Of the square pictures, in pixels.
        patch: Side of a patch, in pixels.
        width: Channels of a token.
        depth: Blocks.
        heads: Of the attention.
        mlp: Units of an MLP over ``width``.
        mean, std: Of pixels in [0, 1], what the weights were trained on (timm's ViT-B/8 files: 0.5).
    """

    side: int = 224
    patch: int = 8
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp: int = 4
    mean: float = 0.5
    std: float = 0.5

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // self.patch

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


class VisionTransformer(nn.Module):
    """Class token, learned positions, blocks; without the last normalisation and the classifier."""

    def __init__(self, shape: VitShape | None = None, ops: Any = nn) -> None:
        super().__init__()
        self.shape = shape = shape or VitShape()
        self.patch_embed = nn.ModuleDict({"proj": ops.Conv2d(3, shape.width, shape.patch, stride=shape.patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + shape.grid**2, shape.width))
        self.blocks = nn.ModuleList(_Block(shape, ops) for _ in range(shape.depth))

    def maps(self, pixels: Tensor, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Pixels [N, 3, side, side] in [0, 1] → the outputs of these blocks (from 0), each [N, width, grid, grid].

        Ends at the last of them.
        """
        grid, found = self.shape.grid, {}
        x = self.patch_embed["proj"]((pixels - self.shape.mean) / self.shape.std).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.to(x).expand(len(x), -1, -1), x], dim=1) + self.pos_embed.to(x)
        for place, block in enumerate(list(self.blocks)[: max(blocks) + 1]):
            x = block(x)
            if place in blocks:
                found[place] = x[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        return tuple(found[place] for place in blocks)


class _Block(nn.Module):
    def __init__(self, shape: VitShape, ops: Any) -> None:
        super().__init__()
        width, hidden = shape.width, shape.mlp * shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = ops.LayerNorm(width, eps=_EPSILON), ops.LayerNorm(width, eps=_EPSILON)
        self.attn = nn.ModuleDict({"qkv": ops.Linear(width, 3 * width), "proj": ops.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": ops.Linear(width, hidden), "fc2": ops.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        rows, count, width = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).view(rows, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, count, width)
        x = x + self.attn["proj"](found)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def vit_weights(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file of timm's → what :class:`VisionTransformer` takes: the last normalisation and the classifier left out."""
    return {name: value for name, value in source.items() if not name.startswith(("norm.", "head", "fc_norm."))}
