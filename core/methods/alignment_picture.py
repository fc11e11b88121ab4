"""A word's alignment map over its picture: bright where the picture answers to the word more than nothing would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from ..heatmap import coloured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

#: Longer side of the pictures at most, in pixels.
LONGEST = 512
#: Least range of the colours, in the maps' natural logs, so that noise is not blown up to full colour.
_LEAST_RANGE = 0.05


def word_pictures(image: Tensor, maps: Tensor, opacity: float = 0.6) -> Iterator[Tensor]:
    """A picture [3, H, W] in [0, 1] and its words' maps [words, h, w] → pictures [3, h', w'] in [0, 1], one at a time.

    The longer side is at most :data:`LONGEST` pixels: a map has a few dozen cells, and a prompt many words. The words
    of one picture share a scale: its middle colour is "as if there were no picture".
    """
    reach = max(_LEAST_RANGE, float(maps.abs().max()))
    grey = image.float().cpu().nan_to_num(0.0).clamp(0.0, 1.0).mean(0, keepdim=True)
    shrink = min(1.0, LONGEST / max(grey.shape[1:]))
    size = tuple(max(1, round(side * shrink)) for side in grey.shape[1:])
    if shrink < 1.0:
        grey = F.interpolate(grey[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    for one in maps:
        fine = F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        colours = coloured((0.5 + 0.5 * fine / reach).clamp(0.0, 1.0))
        yield (1.0 - opacity) * grey + opacity * colours
