"""Where DiffV2IQA finds a picture good or bad, and where its restorer changes the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import BadInput
from ..heatmap import HeatMap, Part

if TYPE_CHECKING:
    from torch import Tensor

    from ..nets.diff_v2 import Parts
    from .diff_v2_iqa_settings import View


def quality_map(
    parts: Parts, views: Sequence[View], size: tuple[int, int], centre: float, scale: tuple[float, float] | None
) -> HeatMap:
    """What each patch adds to the score, exactly: centre + Σ (f + λ · VDA - centre) · w / Σ w is the score.

    The places of the VDA's map are none of the picture, so its score counts alike everywhere; a patch of small weight
    neither helps nor harms.

    Args:
        parts: Of a picture's views.
        views: Where they lie.
        size: Height and width of the picture.
        centre: Score of an average training picture, in points.
        scale: Ends of the scale.

    Raises:
        BadInput: a head without VCG.
    """
    if parts.vcg is None:
        raise BadInput("a head with the VCG branch for a map", "VDA alone", "It knows no places; use another head.")
    vda = torch.zeros(len(views)) if parts.vda is None else parts.weight * parts.vda.total
    found = []
    for row, view in enumerate(views):
        scores, weights, rest = (  # not every device has float64
            values[row].cpu().double() for values in (parts.vcg.scores, parts.vcg.weights, vda)
        )
        apart = 100.0 * (scores + rest) - centre
        found.append(_part(apart * weights / len(views), view, size))
    return HeatMap(tuple(found), centre, *size, lambda raw: raw if scale is None else raw.clamp(*scale), scale)


def change_map(changes: Sequence[Tensor], views: Sequence[View], size: tuple[int, int]) -> HeatMap:
    """How far restoration moved each patch, |picture - d0| in percent of the range of pixels; its sum is the mean."""
    found = [
        _part(100.0 * change.double() / change.numel() / len(views), view, size)
        for change, view in zip(changes, views, strict=True)
    ]
    return HeatMap(tuple(found), 0.0, *size, lambda raw: raw, None, higher_is_better=False)


def _part(values: Tensor, view: View, size: tuple[int, int]) -> Part:
    whole = view.box == (0.0, 0.0, float(size[0]), float(size[1]))
    return Part(values, *view.box, layer="whole" if whole else "crops")
