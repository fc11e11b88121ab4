"""Quality heat maps: what each place of a picture adds to its score, and how that is shown.

A map is made of parts, one for each layer and view that a scorer looked at: a grid of contributions to the value before
the link, and the box of the picture that the grid covers. Contributions sum exactly: base + all parts = that value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

#: Cells that a map is shown in, along the shorter side of its picture: finer ones jitter.
CELLS = 20


@dataclass(frozen=True, slots=True)
class Part:
    """One grid of contributions.

    Attributes:
        values: [h, w], fp64 on the CPU.
        top, left, height, width: The box that the grid covers, in pixels of the picture.
        layer: Names parts that say the same of different places (one layer's crops), of equal weight.
    """

    values: Tensor
    top: float
    left: float
    height: float
    width: float
    layer: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What each place of one picture adds to its score.

    Attributes:
        parts: Grids of contributions. Boxes may reach over the right and lower border: there the picture was mirrored.
        base: The value before the link where nothing is added: that of an average training picture.
        height, width: Of the picture.
        link: Values before the link → scores, monotone.
        scale: Ends of the score's scale; ``None`` for an open one.
        higher_is_better: Which end is good.
    """

    parts: tuple[Part, ...]
    base: float
    height: int
    width: int
    link: Callable[[Tensor], Tensor]
    scale: tuple[float, float] | None = None
    higher_is_better: bool = True

    @property
    def total(self) -> float:
        """base + all contributions: the picture's own value before the link."""
        return self.base + float(sum(part.values.sum() for part in self.parts))

    @property
    def score(self) -> float:
        """The score that the parts make up."""
        return float(self.link(torch.tensor([self.total], dtype=torch.float64))[0])

    def density(self, rows: int, columns: int) -> Tensor:
        """Contributions poured onto a grid of the picture [rows, columns], fp64; they keep their sum."""
        found = torch.zeros(rows, columns, dtype=torch.float64)
        for part in self.parts:
            down, across = self._pours(part, rows, columns)
            found += down @ part.values.double() @ across.T
        return found

    def local(self, cells: int = CELLS) -> Tensor:
        """[rows, columns] about the score that a picture would have if all of it were like this place.

        A place that a layer saw in several crops counts as what it saw on average, so that their borders do not show.
        """
        rows, columns = self.grid(cells)
        values = torch.full((rows, columns), self.base, dtype=torch.float64)
        for layer in dict.fromkeys(part.layer for part in self.parts):
            added, seen = torch.zeros_like(values), torch.zeros_like(values)
            parts = [part for part in self.parts if part.layer == layer]
            for part in parts:
                down, across = self._pours(part, rows, columns)
                added += down @ part.values.double() @ across.T
                even = torch.full(part.values.shape, 1.0 / part.values.numel() / len(parts), dtype=torch.float64)
                seen += down @ even @ across.T
            values += torch.where(seen > 1e-4 / values.numel(), added / seen.clamp_min(1e-12), torch.zeros_like(seen))
        return self.link(values.flatten()).view(rows, columns)

    def grid(self, cells: int = CELLS) -> tuple[int, int]:
        """Rows and columns of nearly square cells, ``cells`` along the shorter side."""
        side = min(self.height, self.width) / cells
        return max(1, round(self.height / side)), max(1, round(self.width / side))

    def worst(self, share: float = 0.1, cells: int = CELLS) -> tuple[int, int, int, int]:
        """(left, top, width, height) in pixels of the square with the worst mean of :meth:`local`.

        Args:
            share: Of the picture's area, in (0, 1].
            cells: Along the shorter side, in which it is looked for.
        """
        if not 0.0 < share <= 1.0:
            raise BadInput("a share of the picture in (0, 1]", str(share), "The default is .1.")
        rows, columns = self.grid(cells)
        goodness = self.local(cells) * (1.0 if self.higher_is_better else -1.0)
        side = (share * rows * columns) ** 0.5
        tall, wide = min(rows, max(1, round(side))), min(columns, max(1, round(side)))
        means = torch.nn.functional.avg_pool2d(goodness[None, None], (tall, wide), stride=1)[0, 0]
        top, left = divmod(int(means.argmin()), means.shape[1])
        y, x = self.height / rows, self.width / columns
        return round(left * x), round(top * y), round(wide * x), round(tall * y)

    def _pours(self, part: Part, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return (
            _pour(part.values.shape[0], part.top, part.height, self.height, rows),
            _pour(part.values.shape[1], part.left, part.width, self.width, columns),
        )


def badness(found: HeatMap, cells: int = CELLS) -> Tensor:
    """[height, width] float32 in [0, 1], 1 where it is worst: on the score's scale, or over the map's own range."""
    local = found.local(cells)
    low, high = found.scale or (float(local.min()), float(local.max()))
    share = (local - low) / max(high - low, 1e-12)
    return _resized(1.0 - share if found.higher_is_better else share, found.height, found.width).clamp(0.0, 1.0)


def _pour(cells: int, start: float, length: float, size: int, bins: int) -> Tensor:
    """[bins, cells]: which share of each cell of a grid falls into each bin of the picture; columns sum to 1.

    Cells overlap by half, as in bilinear interpolation, where they are wider than bins. What lies beyond the picture
    (``size``) is mirrored back into it.
    """
    width, bin_size = length / cells, size / bins
    # Fine samples: several to a bin and to a cell, so that shares are right to a per cent and their sum exactly.
    samples = max(int(np.ceil(8 * length / min(width, bin_size))), 8 * cells)
    at = start + (np.arange(samples) + 0.5) * (length / samples)
    place = np.clip((at - start) / width - 0.5, 0.0, cells - 1.0)
    lower = np.minimum(place.astype(int), max(cells - 2, 0))
    weight = place - lower
    wave = np.mod(at, 2.0 * size)
    bin_of = np.clip((np.minimum(wave, 2.0 * size - wave) / bin_size).astype(int), 0, bins - 1)
    found = np.zeros((bins, cells))
    np.add.at(found, (bin_of, lower), 1.0 - weight)
    np.add.at(found, (bin_of, np.minimum(lower + 1, cells - 1)), weight)
    return torch.from_numpy(found / found.sum(0, keepdims=True))


def _resized(values: Tensor, height: int, width: int) -> Tensor:
    found = torch.nn.functional.interpolate(
        values[None, None].float(), size=(height, width), mode="bilinear", align_corners=False
    )
    return found[0, 0]


#: Lightness rises steadily from best to worst (dark violet, red, orange, pale yellow), so that it reads without colour
#: vision and in grey print. Stops of (r, g, b), evenly spaced.
_STOPS = (
    (20, 11, 52),
    (84, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)


def coloured(badness: Tensor) -> Tensor:
    """[h, w] in [0, 1], 1 worst → colours [3, h, w] in [0, 1]."""
    stops = torch.tensor(_STOPS, dtype=torch.float32) / 255.0
    place = badness.float().clamp(0.0, 1.0) * (len(stops) - 1)
    lower = place.long().clamp(max=len(stops) - 2)
    weight = (place - lower)[..., None]
    return (stops[lower] * (1.0 - weight) + stops[lower + 1] * weight).movedim(-1, 0)


def overlay(
    image: Tensor, found: HeatMap, opacity: float = 0.6, share: float | None = 0.1, cells: int = CELLS
) -> Image.Image:
    """The map over its picture, which is shown in grey, with a bar of its colours below.

    Args:
        image: [3, H, W] in [0, 1].
        found: Its map.
        opacity: Of the colours.
        share: Of the picture's area, for the box around the worst place; ``None`` draws none.
        cells: That the map is shown in, along the shorter side.

    Raises:
        BadInput: another picture than the map's.
    """
    height, width = found.height, found.width
    if tuple(image.shape) != (3, height, width):
        raise BadInput(f"an image [3, {height}, {width}]", f"shape {list(image.shape)}", "Give the map's own picture.")
    local, (low, high) = found.local(cells), _range(found, cells)
    goodness = (local - low) / max(high - low, 1e-12)
    colours = coloured(_resized(1.0 - goodness if found.higher_is_better else goodness, height, width))
    grey = image.float().nan_to_num(0.0).clamp(0.0, 1.0).mean(0, keepdim=True).expand(3, -1, -1).cpu()
    picture = _picture((1.0 - opacity) * grey + opacity * colours)
    if share is not None:
        _draw_box(picture, found.worst(share, cells))
    return _with_bar(picture, low, high, found)


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.movedim(0, -1).numpy() * 255.0 + 0.5).astype(np.uint8))


def _range(found: HeatMap, cells: int) -> tuple[float, float]:
    """The scores at the ends of the colours: the map's own, at least a tenth of the scale apart."""
    local = found.local(cells)
    low, high = float(local.min()), float(local.max())
    least = 0.1 * (found.scale[1] - found.scale[0]) if found.scale else 1e-6
    if high - low < least:
        middle = (low + high) / 2.0
        low, high = middle - least / 2.0, middle + least / 2.0
    return low, high


def _draw_box(picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    line = max(2, min(picture.size) // 160)
    draw = ImageDraw.Draw(picture)
    for colour, inset in (((0, 0, 0), 0), ((255, 255, 255), line)):
        edges = (left + inset, top + inset, left + width - 1 - inset, top + height - 1 - inset)
        if edges[2] > edges[0] and edges[3] > edges[1]:
            draw.rectangle(edges, outline=colour, width=line)


def _with_bar(picture: Image.Image, low: float, high: float, found: HeatMap) -> Image.Image:
    """The picture with a strip below: the colours from worst to best, and the scores at their ends, both in words."""
    strip = max(18, min(picture.size) // 16)
    whole = Image.new("RGB", (picture.width, picture.height + strip), (24, 24, 24))
    whole.paste(picture, (0, 0))
    letters = ImageFont.load_default(round(strip * 0.6))
    draw = ImageDraw.Draw(whole)
    ends = (low, high) if found.higher_is_better else (high, low)
    texts = [
        f"{word} {value:.0f}" if found.scale else f"{word} {value:.2g}"
        for word, value in zip(("worst", "best"), ends, strict=True)
    ]
    widths = [draw.textlength(text, font=letters) for text in texts]
    middle = picture.height + strip / 2
    draw.text((strip * 0.3, middle), texts[0], font=letters, fill=(255, 255, 255), anchor="lm")
    draw.text((picture.width - strip * 0.3, middle), texts[1], font=letters, fill=(255, 255, 255), anchor="rm")
    first, last = round(strip * 0.6 + widths[0]), round(picture.width - strip * 0.6 - widths[1])
    if last - first > 8:
        bar = _picture(coloured(torch.linspace(1.0, 0.0, last - first)[None].expand(max(4, strip // 2), -1)))
        whole.paste(bar, (first, round(middle - bar.height / 2)))
    return whole
