"""Ladders, family e: structure that falls apart while light and colour stay: melted, shattered, repeated.

What the other families leave out: a weak denoiser's pictures are often clean and sharp, but their lines bend where
nothing bends, edges do not meet, and one piece of texture comes back again and again.
"""

from __future__ import annotations

import math

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from .ladder import LadderKind

#: Wavelength of a bend, mean distance of two fragments' centres, radius of a repeated piece; in px.
_BEND, _FRAGMENT, _PIECE = 10, 20, 12
_SHARES = (0.05, 0.12, 0.25, 0.45, 0.8)


def _melted(image: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    """Every point moved by a smooth random field, ``reach`` px on average."""
    height, width = image.shape[1:]
    coarse = torch.randn((1, 2, height // _BEND + 2, width // _BEND + 2), generator=generator)
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[0]
    field = field * (reach / field.square().sum(dim=0).sqrt().mean())
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([(across + field[0]) / max(width - 1, 1), (down + field[1]) / max(height - 1, 1)], dim=-1)
    return F.grid_sample(
        image[None], (2 * at - 1)[None], mode="bicubic", padding_mode="reflection", align_corners=True
    )[0]


def _shattered(image: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    """Irregular fragments, each moved by whole pixels, ``reach`` of them on average: no pixel is made up."""
    height, width = image.shape[1:]
    count = max(2, height * width // _FRAGMENT**2)
    centres = torch.ones(height, width, dtype=torch.bool)
    centres.view(-1)[torch.randperm(height * width, generator=generator)[:count]] = False
    nearest = distance_transform_edt(centres.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(nearest).long()
    angle = 2 * math.pi * torch.rand((height, width), generator=generator)
    far = 2 * reach * torch.rand((height, width), generator=generator)
    down, across = ((side * far).round().long()[rows, columns] for side in (angle.sin(), angle.cos()))
    down = (down + torch.arange(height)[:, None]).clamp(0, height - 1)
    return image[:, down, (across + torch.arange(width)[None]).clamp(0, width - 1)]


def _repeated(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """One round piece's texture laid over the picture again and again, in the colour of what it covers, soft-rimmed.

    The pieces together are as large as this share of the picture.
    """
    height, width = image.shape[1:]
    radius = min(_PIECE, (min(height, width) - 1) // 2)
    side, wide = torch.arange(-radius, radius + 1), 2 * radius + 1
    far = (side[:, None].square() + side[None].square()).float().sqrt()
    soft = ((radius - far) / 3).clamp(0, 1)

    def mean(piece: Tensor) -> Tensor:
        return (soft * piece).sum(dim=(1, 2), keepdim=True) / soft.sum()

    every = math.ceil(height * width / (math.pi * radius**2))
    drawn = torch.rand((every + 1, 2), generator=generator) * torch.tensor([height - wide + 1, width - wide + 1])
    (top, left), *places = drawn.long().tolist()
    piece = image[:, top : top + wide, left : left + wide].clone()
    texture, made = piece - mean(piece), image.clone()
    # On a small picture, too, each level adds a piece.
    for top, left in places[: max(1 + _SHARES.index(share), round(share * every))]:
        under = made[:, top : top + wide, left : left + wide]
        under.copy_(soft * (texture + mean(under)) + (1 - soft) * under)
    return made


STRUCTURE: tuple[LadderKind, ...] = (
    LadderKind("structure", "melted", _melted, (0.6, 1.1, 2.0, 3.4, 5.5)),
    LadderKind("structure", "shattered", _shattered, (0.8, 1.5, 2.6, 4.2, 7.0)),
    LadderKind("structure", "repeated", _repeated, _SHARES),
)
