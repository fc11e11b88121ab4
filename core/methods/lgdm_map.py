"""Where lgdm finds a picture good or bad: a linear head's value before the link, taken apart exactly into cells.

The head reads pooled features; a pooled feature is a sum over the cells of its grid (``core/taps/shares.py``), so each
cell of each layer, noise level and view has its exact part. The maps are made inside the forwards that a score makes
anyway, by reducers that give a map for the features' weights in place of the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import BadInput
from ..heatmap import HeatMap, Part
from ..nets.views import grid
from ..taps.recorder import Grid, Recorder
from ..taps.shares import shares
from .hyperfeature_progress import Progress
from .hyperfeature_views import PictureViews, picture_views
from .hyperfeatures import Hyperfeatures

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Tap
    from ..heads.head import Head
    from ..taps.recorder import Reducer
    from .contract import Watch


def lgdm_map(features: Hyperfeatures, head: Head, image: Tensor, *, watch: Watch | None = None) -> HeatMap:
    """A picture [3, H, W] in [0, 1] → what each place adds to a linear head's value before the link.

    Raises:
        BadInput: the head is not linear, or the picture cannot be scored.
    """
    linear = head.linear()
    if linear is None:
        raise BadInput(
            "a linear head (ridge)", f"one of kind {head.regressor.kind}", "Fit a head with the model ridge."
        )
    weights, intercept = linear
    centre = head.scaler.centre
    parts = _Contributions(features, head, weights).parts(image, watch)
    base = intercept + float(weights @ centre)
    return HeatMap(tuple(parts), base, int(image.shape[1]), int(image.shape[2]), head.link, head.meta.scale)


class _Contributions(Hyperfeatures):
    """Hyperfeatures whose reducers give contributions [views · h · w] in place of pooled features."""

    def __init__(self, features: Hyperfeatures, head: Head, weights: Tensor) -> None:
        super().__init__(features.backbone, features.options, features.psi)
        self._weights, self._centre = weights, head.scaler.centre
        self._slots = {slot.name: slice(slot.start, slot.stop) for slot in head.layout.slots}
        self._grids: dict[str, Grid] = {}
        self._running: Recorder | None = None
        self._kinds: list[str] = []

    def parts(self, image: Tensor, watch: Watch | None) -> list[Part]:
        """All grids of one picture."""
        count = self._views(image)
        if isinstance(count, str):
            raise BadInput("a picture that can be scored", count, "Give another picture.")
        views = picture_views(image, self.backbone.family, self.options)
        tell = Progress(watch, count)
        found = []
        with torch.no_grad():
            for place, pixels in enumerate(views.pixels):
                self._kinds = [
                    kind for kind, places in zip(self.options.views, views.kinds, strict=True) if place in places
                ]
                target = pixels[None]
                (row,) = self._rows(self.backbone.encode(target).float(), target, tell)
                if row.features is None:
                    raise BadInput("a picture that can be scored", row.reason or "no features", "See the reason.")
                found += self._parts_of(row.features, place, views, image)
        return found

    def _recorder(self, patterns: list[dict[str, Tensor]], weight: Tensor | None = None) -> Recorder:
        self._running = super()._recorder(patterns, weight)
        return self._running

    def _pooled(self, tap: Tap, weight: Tensor | None) -> Reducer:
        def reduce(values: Tensor, grid_of: Grid) -> Tensor:
            assert self._running is not None
            self._grids[tap.name] = Grid(*values.shape[-2:])
            # The recorder counts forwards, one for each noise level, and its reducers run inside them.
            maps = [self._map(values, tap, self._running.calls, kind) for kind in self._kinds]
            return torch.stack(maps, 1).flatten(1)

        return reduce

    def _map(self, values: Tensor, tap: Tap, level: int, view: str) -> Tensor:
        """[rows, C, h, w] → the contributions of one level's and view's features [rows, h, w], fp64."""
        found = torch.zeros(len(values), *values.shape[-2:], dtype=torch.float64)
        for reducer in self.options.reducers:
            at = self._slots[tap.name, level, reducer, view]
            found += torch.einsum("c,nchw->nhw", self._weights[at], shares(values, reducer, self._centre[at]))
        return found

    def _parts_of(self, row: Tensor, place: int, views: PictureViews, image: Tensor) -> list[Part]:
        """One view's flat row → a grid for each level and tap, in each kind of view that it belongs to."""
        found, start = [], 0
        for level in range(len(self.sigmas)):
            for tap in self.taps:
                size = self._grids[tap.name]
                length = len(self._kinds) * size.h * size.w
                maps = row[start : start + length].double().view(len(self._kinds), size.h, size.w)
                start += length
                for values, kind in zip(maps, self._kinds, strict=True):
                    places = views.kinds[self.options.views.index(kind)]
                    box = self._box(kind, places.index(place), image)
                    found.append(Part(values / len(places), *box, layer=f"{kind} {level} {tap.name}"))
        return found

    def _box(self, view: str, number: int, image: Tensor) -> tuple[float, float, float, float]:
        height, width = int(image.shape[1]), int(image.shape[2])
        if view == "whole":
            return 0.0, 0.0, float(height), float(width)
        side = self.options.size(self.backbone.family)
        top, left = grid(max(height, side), max(width, side), self.options.most_crops, side)[number]
        return float(top), float(left), float(side), float(side)
