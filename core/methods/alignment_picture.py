"""A word's alignment map over its picture: bright where the picture answers to the word more than nothing would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from ..heatmap import coloured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

#: Longer side of the pictures in pixels: at most, and at least where there are very many of them.
LONGEST, _SHORTEST = 512, 64
#: Bytes that all pictures of a batch may hold together before they get smaller: every word of every image has one.
_MOST_BYTES = 2**30
#: Least range of the colours, in the maps' natural logs, so that noise is not blown up to full colour.
_LEAST_RANGE = 0.05


def longest_side(count: int) -> int:
    """The longer side in pixels at which ``count`` float32 pictures fit into memory, between 64 and 512."""
    fitting = int((_MOST_BYTES / (12 * max(1, count))) ** 0.5)
    return max(_SHORTEST, min(LONGEST, fitting))


def word_pictures(image: Tensor, maps: Tensor, opacity: float = 0.6, longest: int = LONGEST) -> Iterator[Tensor]:
    """A picture [3, H, W] in [0, 1] and its words' maps [words, h, w] → pictures [3, h', w'] in [0, 1], one at a time.

    The longer side is at most ``longest`` pixels: a map has a few dozen cells, and a prompt many words. The words
    of one picture share a scale: its middle colour is "as if there were no picture".
    """
    reach = max(_LEAST_RANGE, float(maps.abs().max()))
    grey = image.float().cpu().nan_to_num(0.0).clamp(0.0, 1.0).mean(0, keepdim=True)
    shrink = min(1.0, longest / max(grey.shape[1:]))
    size = tuple(max(1, round(side * shrink)) for side in grey.shape[1:])
    if shrink < 1.0:
        grey = F.interpolate(grey[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    for one in maps:
        fine = F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        colours = coloured((0.5 + 0.5 * fine / reach).clamp(0.0, 1.0))
        yield (1.0 - opacity) * grey + opacity * colours
