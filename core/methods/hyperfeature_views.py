"""The views of a picture that hyperfeatures are read from, and how their features come together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..nets.views import crops, grid
from .native_size import native_shape, to_native

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Family
    from .hyperfeature_options import HyperfeatureOptions


@dataclass(frozen=True, slots=True)
class PictureViews:
    """Network input of one picture.

    Attributes:
        pixels: Views [3, h, w], each computed once.
        kinds: For each kind of view, in the options' order, the places in ``pixels`` whose features are averaged.
    """

    pixels: tuple[Tensor, ...]
    kinds: tuple[tuple[int, ...], ...]

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """Features [D] of each of ``pixels`` → the picture's features [kinds · D]."""
        return torch.cat([torch.stack([rows[place] for place in places]).mean(0) for places in self.kinds])


def picture_views(image: Tensor, family: Family, options: HyperfeatureOptions) -> PictureViews:
    """A picture [3, H, W] → its views.

    A picture of the crops' own size is its one crop and its whole view at once, and is looked at once.

    Raises:
        BadInput: the picture is longer than 16:1.
    """
    side = options.size(family)
    height, width = image.shape[1:]
    shape = native_shape(height, width, family, side)
    found: list[Tensor] = []
    kinds: dict[str, tuple[int, ...]] = {}
    if "crops" in options.views:
        found += list(crops(image, options.most_crops, side))
        kinds["crops"] = tuple(range(len(found)))
    if "whole" in options.views:
        if found and (height, width) == shape == (side, side):
            kinds["whole"] = (0,)
        else:
            kinds["whole"] = (len(found),)
            found.append(to_native(image, shape))
    return PictureViews(tuple(found), tuple(kinds[view] for view in options.views))


def view_count(height: int, width: int, family: Family, options: HyperfeatureOptions) -> int:
    """How many views :func:`picture_views` makes of a picture of this size.

    Raises:
        BadInput: as there.
    """
    side = options.size(family)
    shape = native_shape(height, width, family, side)
    count = len(grid(max(height, side), max(width, side), options.most_crops, side)) if "crops" in options.views else 0
    shared = count > 0 and (height, width) == shape == (side, side)
    return count + ("whole" in options.views and not shared)
