"""Kinds of damage that nothing in this project is trained on: for reporting whether a score falls with damage.

No training code may import this file (an import contract holds that). The eleven kinds of ``distortions.py`` are for
training and for the demo. A severity means about the same visible loss over the kinds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput

#: Severities of a ladder; 0 is the untouched picture.
HELD_OUT_SEVERITIES = (1, 2, 3, 4, 5)
#: Added to every seed, so that no noise of a ladder is ever one that training drew.
_SEEDS_FROM = 7_000_000

_Change = Callable[[Tensor, float, torch.Generator], Tensor]


def held_out_damage(image: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """One picture [3, H, W] in [0, 1] → the damaged picture, same shape and range.

    Args:
        image: The picture.
        kind: One of ``HELD_OUT_KINDS``.
        severity: 0 (untouched) to 5.
        seed: Draws what is drawn; the same seed gives the same picture.

    Raises:
        BadInput: an unknown kind, or a severity outside 0 to 5.
    """
    if kind not in _LADDERS:
        raise BadInput(f"a kind of damage out of {', '.join(HELD_OUT_KINDS)}", repr(kind), "Use one of these names.")
    if severity not in (0, *HELD_OUT_SEVERITIES):
        raise BadInput("a severity from 0 to 5", repr(severity), "0 leaves the picture as it is.")
    if severity == 0:
        return image.clone()
    change, strengths = _LADDERS[kind]
    generator = torch.Generator().manual_seed(_SEEDS_FROM + seed)
    return change(image.float(), strengths[severity - 1], generator).clamp(0.0, 1.0)


def _disc_blur(image: Tensor, radius: float, _: torch.Generator) -> Tensor:
    reach = int(np.ceil(radius))
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = (radius + 0.5 - (at[:, None] ** 2 + at[None] ** 2).sqrt()).clamp(0.0, 1.0)
    padded = F.pad(image[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def _zoom_blur(image: Tensor, extent: float, _: torch.Generator) -> Tensor:
    scales = torch.linspace(1.0, 1.0 / (1.0 + extent), 12).tolist()
    theta = torch.tensor([[[scale, 0.0, 0.0], [0.0, scale, 0.0]] for scale in scales])
    grid = F.affine_grid(theta, [len(scales), *image.shape], align_corners=False)
    repeated = image.expand(len(scales), -1, -1, -1)
    return F.grid_sample(repeated, grid, padding_mode="border", align_corners=False).mean(0)


def _speckle(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    return image * (1.0 + sigma * torch.randn(image.shape, generator=generator))


def _colour_noise(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    coarse = torch.randn((1, 3, *(-(-side // 3) for side in image.shape[1:])), generator=generator)
    noise = F.interpolate(coarse, size=image.shape[1:], mode="bilinear")[0]
    return image + sigma * (noise - noise.mean(0))


def _scan_jitter(image: Tensor, reach: float, generator: torch.Generator) -> Tensor:
    height, width = image.shape[1:]
    shift = (torch.randn(height, generator=generator) * reach).round().long()
    at = (torch.arange(width)[None] + shift[:, None]).clamp(0, width - 1)
    return image.gather(2, at.expand(3, -1, -1))


def _lost_blocks(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    rows, columns = (-(-side // 16) for side in image.shape[1:])
    lost = (torch.rand((1, 1, rows, columns), generator=generator) < share).float()
    mask = F.interpolate(lost, scale_factor=16.0, mode="nearest")[0, :, : image.shape[1], : image.shape[2]]
    return torch.where(mask > 0, image.roll(24, dims=2), image)


def _smear(image: Tensor, side: float, _: torch.Generator) -> Tensor:
    return _from_picture(_to_picture(image).filter(ImageFilter.MedianFilter(int(side))))


def _over_sharpen(image: Tensor, amount: float, _: torch.Generator) -> Tensor:
    return image + amount * (image - _disc_blur(image, 2.0, _))


def _webp(image: Tensor, quality: float, _: torch.Generator) -> Tensor:
    return _coded(image, "WEBP", quality=int(quality), method=4)


def _jpeg2000(image: Tensor, ratio: float, _: torch.Generator) -> Tensor:
    return _coded(image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


def _coded(image: Tensor, form: str, **options: Any) -> Tensor:
    buffer = io.BytesIO()
    _to_picture(image).save(buffer, form, **options)
    buffer.seek(0)
    with Image.open(buffer) as picture:
        return _from_picture(picture.convert("RGB"))


def _to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _from_picture(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 255.0


_LADDERS: dict[str, tuple[_Change, tuple[float, float, float, float, float]]] = {
    "disc_blur": (_disc_blur, (1.0, 2.0, 3.5, 6.0, 9.0)),
    "zoom_blur": (_zoom_blur, (0.01, 0.03, 0.06, 0.1, 0.18)),
    "speckle": (_speckle, (0.05, 0.1, 0.18, 0.3, 0.5)),
    "colour_noise": (_colour_noise, (0.03, 0.06, 0.11, 0.18, 0.3)),
    "scan_jitter": (_scan_jitter, (0.6, 1.2, 2.4, 5.0, 10.0)),
    "lost_blocks": (_lost_blocks, (0.02, 0.05, 0.1, 0.2, 0.4)),
    "smear": (_smear, (3, 5, 7, 9, 13)),
    "over_sharpen": (_over_sharpen, (2.0, 4.0, 7.0, 12.0, 20.0)),
    "webp": (_webp, (30, 15, 8, 3, 0)),
    "jpeg2000": (_jpeg2000, (30, 60, 120, 240, 480)),
}

HELD_OUT_KINDS: tuple[str, ...] = tuple(_LADDERS)
