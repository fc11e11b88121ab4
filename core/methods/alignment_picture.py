"""A word's alignment map over its picture: bright where the picture answers to the word more than nothing would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from ..heatmap import coloured

if TYPE_CHECKING:
    from torch import Tensor

#: Least range of the colours, in the maps' natural logs, so that noise is not blown up to full colour.
_LEAST_RANGE = 0.05


def word_pictures(image: Tensor, maps: Tensor, opacity: float = 0.6) -> Tensor:
    """A picture [3, H, W] in [0, 1] and its words' maps [words, h, w] → [words, 3, H, W] in [0, 1].

    The words of one picture share a scale: its middle colour is "as if there were no picture".
    """
    reach = max(_LEAST_RANGE, float(maps.abs().max()))
    fine = F.interpolate(maps[:, None], size=tuple(image.shape[1:]), mode="bilinear", align_corners=False)[:, 0]
    grey = image.float().cpu().nan_to_num(0.0).clamp(0.0, 1.0).mean(0, keepdim=True)
    colours = coloured((0.5 + 0.5 * fine / reach).clamp(0.0, 1.0).flatten(0, 1)).unflatten(1, tuple(fine.shape[:2]))
    return (1.0 - opacity) * grey + opacity * colours.movedim(1, 0)
