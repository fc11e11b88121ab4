"""Large pictures in tiles: the size policy of scorers on the diffusion model that looks at native pixels everywhere.

A scorer on the loaded model resizes a picture to the area that the model was trained at. Here a picture that is larger
is cut into overlapping tiles of that area at its own scale; each is scored as a picture, and the mean counts. Smaller
pictures are scored as ever. However large the picture, a few tiles at a time are held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..images import as_list
from ..records import Score, ScoreBatch, ScoreSpec
from .native_size import LONGEST_ASPECT

if TYPE_CHECKING:
    from torch import Tensor

    from .contract import Images, Scorer, Watch

#: Least overlap of neighbours, as a part of a tile's side.
OVERLAP = 1 / 8
#: Tiles that the scorer is given at a time; how many of them share a forward is its own and memory's business.
AT_ONCE = 16
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of one picture, in pixels."""

    picture: int
    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """The tile [3, height, width] of its picture [3, H, W]: a view, no copy."""
        return image[:, self.top : self.top + self.height, self.left : self.left + self.width]


def tiles(picture: int, height: int, width: int, side: int) -> list[Tile]:
    """The tiles of a picture: itself where neither side is longer than ``side``.

    Where one side is shorter than a tile, tiles take all of it and are longer along the other, to the same area.
    """
    if max(height, width) <= side:
        return [Tile(picture, 0, 0, height, width)]
    high, wide = _tile_sides(height, width, side)
    return [Tile(picture, top, left, high, wide) for top in _starts(height, high) for left in _starts(width, wide)]


def _tile_sides(height: int, width: int, side: int) -> tuple[int, int]:
    short = min(height, width, side)
    long = min(max(height, width), int(side * side / short), int(LONGEST_ASPECT * short))
    if short == side:
        return side, side
    return (short, long) if height < width else (long, short)


def _starts(size: int, tile: int) -> list[int]:
    if size <= tile:
        return [0]
    count = 1 + math.ceil((size - tile) / (tile * (1.0 - OVERLAP)))
    return [round(place * (size - tile) / (count - 1)) for place in range(count)]


class Tiled:
    """A scorer that looks at large pictures in tiles; a :class:`~.contract.Scorer`.

    Args:
        scorer: What scores a tile, and smaller pictures.

    Raises:
        BadInput: a scorer that resizes to no area of a model, or one that scores masked regions only.
    """

    def __init__(self, scorer: Scorer) -> None:
        told = scorer.spec.settings
        backbone = getattr(scorer, "backbone", None)
        if backbone is None or "side" not in told:
            got = f"{scorer.spec.name}, which has a size policy of its own"
            raise BadInput(
                "a scorer that resizes pictures to its model's size", got, "Choose resize (in Python: tiles=False)."
            )
        if "masks" in told:
            raise BadInput("a scorer of whole pictures for tiles", "one with masks", "Disconnect the mask, or resize.")
        self._scorer = scorer
        self._side = int(told["side"] or backbone.family.native_size)

    @property
    def side(self) -> int:
        """Side of a square tile in pixels: the size at which the scorer reads pictures."""
        return self._side

    @property
    def spec(self) -> ScoreSpec:
        """The scorer's own, under a size policy of its own, and without a head's scale: that was fitted to another."""
        own = self._scorer.spec
        policy = (
            f"pictures with a side over {self._side} px: native-scale tiles of the area of {self._side}×{self._side} "
            f"px that overlap by an eighth of their side or more, each scored as a picture, the mean of all; others: "
            f"{own.size_policy}"
        )
        told = {**own.settings, "large_images": "tiles", "tile_side": self._side}
        found = replace(own, size_policy=policy, settings=told)
        return replace(found, scale=None, calibrated_on=None) if "head" in own.needs else found

    def score(self, images: Images, prompts: Sequence[str] | None = None, *, watch: Watch | None = None) -> ScoreBatch:
        """Score every image; a picture in tiles tells their number, their spread and the worst one.

        ``watch`` is told hundredths of tiles.
        """
        found = as_list(images)
        if prompts is not None and len(prompts) != len(found):
            raise BadInput(f"{len(found)} prompts, one per image", str(len(prompts)), "Leave prompts out.")
        places = [tile for n, image in enumerate(found) for tile in tiles(n, *_sides(image), self._side)]
        spec = self.spec
        if len(places) == len(found):
            return replace(self._scorer.score(images, prompts, watch=watch), spec=spec)
        scores: list[Score] = []
        for first in range(0, len(places), AT_ONCE):
            part = places[first : first + AT_ONCE]
            texts = None if prompts is None else [str(prompts[tile.picture]) for tile in part]
            told = None if watch is None else _progress(watch, first, len(part), len(places))
            scores += self._scorer.score([tile.of(found[tile.picture]) for tile in part], texts, watch=told)
        return ScoreBatch(spec, tuple(self._whole(n, places, scores) for n in range(len(found))))

    def _whole(self, picture: int, places: Sequence[Tile], scores: Sequence[Score]) -> Score:
        """The tiles of one picture → its score; one tile without a value is the reason for all."""
        mine = [(tile, score) for tile, score in zip(places, scores, strict=True) if tile.picture == picture]
        if len(mine) == 1:
            return replace(mine[0][1], index=picture)
        for tile, score in mine:
            if score.reason is not None:
                where = f"in its tile of {tile.width}×{tile.height} px at ({tile.left}, {tile.top}): {score.reason}"
                return Score(None, picture, reason=where)
        values = [float(score.value or 0.0) for _, score in mine]
        mean = math.fsum(values) / len(values)
        worst = min(range(len(mine)), key=lambda place: self._scorer.spec.goodness(values[place]))
        shown = {
            "tiles": len(mine),
            "tile_size": [mine[0][0].width, mine[0][0].height],
            "tile_spread": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
            "worst_tile": {"value": values[worst], "left": mine[worst][0].left, "top": mine[worst][0].top},
        }
        return Score.of(
            mean, picture, attributes={**_means([score for _, score in mine]), **shown, **self._warned(mine)}
        )

    def _warned(self, mine: Sequence[tuple[Tile, Score]]) -> dict[str, Any]:
        """The tiles' own warnings, and that a head knows nothing of tiles."""
        found = list(dict.fromkeys(text for _, score in mine for text in score.attributes.get("warnings", ())))
        if "head" in self._scorer.spec.needs:
            found.append(
                "the head was fitted to pictures under another size policy "
                f"({self._scorer.spec.size_policy}); this one was scored in tiles: its scores rank, without a scale"
            )
        return {"warnings": found} if found else {}


def _sides(image: Tensor) -> tuple[int, int]:
    return int(image.shape[1]), int(image.shape[2])


def _means(scores: Sequence[Score]) -> dict[str, float]:
    """What every tile tells as a number, averaged."""
    shared = [name for name, value in scores[0].attributes.items() if isinstance(value, float)]
    return {
        name: math.fsum(float(score.attributes[name]) for score in scores) / len(scores)
        for name in shared
        if all(isinstance(score.attributes.get(name), float) for score in scores)
    }


def _progress(watch: Watch, done: int, count: int, total: int) -> Watch:
    """A scorer's own steps over ``count`` of the tiles → steps over all of them."""

    def told(step: int, steps: int) -> None:
        watch(round(_STEPS * (done + count * step / max(1, steps))), _STEPS * total)

    return told
