"""The views of a region of a picture: where it is looked at, and how much each pixel counts there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..errors import BadInput
from .hyperfeature_views import picture_views

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Family, Tap
    from .hyperfeature_options import HyperfeatureOptions, View

_EMPTY = "its mask is empty: there is no region to score"


@dataclass(frozen=True, slots=True)
class MaskedView:
    """One view.

    Attributes:
        kind: ``crops`` or ``whole``.
        pixels: [1, 3, h, w].
        weight: [1, 1, h, w] from 0 to 1.
    """

    kind: View
    pixels: Tensor
    weight: Tensor

    @property
    def area(self) -> float:
        """Pixels of the region in it."""
        return float(self.weight.sum())


def masks_at_door(masks: Tensor) -> Tensor:
    """Masks [M, H, W] or one [H, W] → [M, H, W] in fp32 on the CPU.

    Raises:
        BadInput: not that, or values beyond 0 to 1.
    """
    got = f"shape {list(masks.shape)}" if isinstance(masks, torch.Tensor) else type(masks).__name__
    if not isinstance(masks, torch.Tensor) or masks.ndim not in (2, 3) or min(masks.shape) < 1:
        raise BadInput("masks [N, H, W]", got, "Connect a MASK: one for all images, or one for each.")
    found = (masks if masks.ndim == 3 else masks[None]).detach().to("cpu", torch.float32)
    if not bool(((found >= 0.0) & (found <= 1.0)).all()):
        raise BadInput("mask values from 0 to 1", "others, or NaN", "Clamp the mask to 0 to 1.")
    return found


def mask_of(masks: Tensor, place: int, count: int) -> Tensor:
    """The mask [H, W] of one image of ``count``: its own, or the only one.

    Raises:
        BadInput: neither one mask nor one per image.
    """
    if len(masks) not in (1, count):
        raise BadInput(f"1 mask, or {count} for {count} images", str(len(masks)), "Give one for all, or one for each.")
    return masks[place if len(masks) > 1 else 0]


def masked_views(
    image: Tensor, mask: Tensor, family: Family, options: HyperfeatureOptions, taps: Sequence[Tap]
) -> list[MaskedView] | str:
    """A picture [3, H, W] and its mask, resized to it → the views that see enough of the region, or why there are none.

    Crops lie over the region's own box, so that none looks elsewhere; the whole view is that of the picture, at the
    scale that the head knows. A view counts where the region holds at least one cell of the coarsest tap.

    Raises:
        BadInput: the picture is longer than 16:1.
    """
    height, width = image.shape[1:]
    weight = mask[None].to(image.device)
    if tuple(mask.shape) != (height, width):
        weight = F.interpolate(weight[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0.0, 1.0)
    if not bool(weight.any()):
        return _EMPTY
    need = (family.latent_stride * max(tap.stride for tap in taps)) ** 2
    found: list[MaskedView] = []
    for kind in options.views:
        box = _box(weight[0], options.size(family)) if kind == "crops" else (slice(None), slice(None))
        alone = replace(options, views=(kind,))
        pixels, weights = (
            picture_views(part[(slice(None), *box)].expand(3, -1, -1), family, alone).pixels for part in (image, weight)
        )
        views = [MaskedView(kind, x[None], w[None, :1]) for x, w in zip(pixels, weights, strict=True)]
        enough = [view for view in views if view.area >= need]
        if not enough:
            most = max(view.area for view in views)
            return (
                f"its masked region is too small: {most:.0f} pixels of what the model looks at, and the model's "
                f"coarsest layer needs {need} (crop and enlarge the image, or mask more of it)"
            )
        found += enough
    return found


def joined_by_area(views: Sequence[MaskedView], rows: Sequence[Tensor], kinds: Sequence[str]) -> Tensor:
    """Features [D] of each view → the picture's [kinds · D]; views of one kind count by their part of the region."""
    parts = []
    for kind in kinds:
        mine = [place for place, view in enumerate(views) if view.kind == kind]
        area = torch.tensor([views[place].area for place in mine])
        parts.append((torch.stack([rows[place] for place in mine]) * (area / area.sum())[:, None]).sum(0))
    return torch.cat(parts)


def _box(weight: Tensor, least: int) -> tuple[slice, slice]:
    """Rows and columns that hold the region [H, W], at least ``least`` of each where the picture has them."""
    return _span(weight.any(1), least), _span(weight.any(0), least)


def _span(held: Tensor, least: int) -> slice:
    places, size = held.nonzero().flatten().tolist(), len(held)
    first, last = places[0], places[-1] + 1
    length = max(last - first, min(least, size))
    first = min(max(0, (first + last - length) // 2), size - length)
    return slice(first, first + length)
