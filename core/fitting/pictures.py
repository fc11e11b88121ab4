"""The pictures that a head is fitted to: read one after another, with their ratings and groups."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.loaders import rated_csv
from ..data.rated import RatedSet
from ..errors import BadInput, LatentCriticError
from ..images import as_list, load_image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures by place; files are read when they are needed.

    Attributes:
        name: What they are called in the head's file.
        sources: Files, or tensors [3, H, W] in [0, 1].
        groups: Pictures of one group show one content.
        ratings: 0 (bad) to 100 (good), one per picture; ``None`` without ratings.
    """

    name: str
    sources: tuple[Path | Tensor, ...]
    groups: tuple[str, ...]
    ratings: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        counts = {len(self.sources), len(self.groups), len(self.sources if self.ratings is None else self.ratings)}
        if len(counts) > 1 or not self.sources:
            raise BadInput("a group and a rating per picture", str(sorted(counts)), "Give as many of each.")

    def __len__(self) -> int:
        return len(self.sources)

    @classmethod
    def of_rated(cls, data: RatedSet) -> Pictures:
        """A rated set."""
        images = data.images
        return cls(
            data.name,
            tuple(image.path for image in images),
            tuple(image.group for image in images),
            tuple(image.mos for image in images),
        )

    @classmethod
    def of_csv(cls, file: str | Path) -> Pictures:
        """Own ratings: path, rating 0 to 100 and maybe a content group in each row; paths relative to the file."""
        return cls.of_rated(rated_csv(file))

    @classmethod
    def of_tensors(cls, name: str, images: Sequence[Tensor], ratings: Sequence[float] | None) -> Pictures:
        """Images [3, H, W] at hand; grey is repeated, alpha dropped. Those of equal pixels are one content.

        Raises:
            BadInput: no images, not one rating per image, or ratings outside 0 to 100.
        """
        images = as_list(images)
        if ratings is not None and len(ratings) != len(images):
            raise BadInput(f"{len(images)} ratings, one per image", str(len(ratings)), "Give as many as images.")
        if ratings is not None and not all(0.0 <= rating <= 100.0 for rating in ratings):
            raise BadInput("ratings from 0 to 100", f"{min(ratings):g} to {max(ratings):g}", "Map yours to 0 to 100.")
        groups = [hashlib.sha256(image.contiguous().cpu().numpy().tobytes()).hexdigest() for image in images]
        return cls(name, tuple(images), tuple(groups), None if ratings is None else tuple(ratings))

    def take(self, places: Sequence[int]) -> Pictures:
        """These, in this order."""
        return Pictures(
            self.name,
            tuple(self.sources[place] for place in places),
            tuple(self.groups[place] for place in places),
            None if self.ratings is None else tuple(self.ratings[place] for place in places),
        )

    def at_most(self, count: int | None, seed: int = 0) -> Pictures:
        """``count`` of them, drawn by ``seed``, in their own order; all when there are no more."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise BadInput("at least 1 picture", str(count), "Leave the limit out.")
        return self.take(sorted(np.random.default_rng(seed).permutation(len(self))[:count].tolist()))

    def read(self) -> Iterator[tuple[int, Tensor | None, str | None]]:
        """(place, pixels or ``None``, reason or ``None``), one after another."""
        for place, source in enumerate(self.sources):
            if not isinstance(source, Path):
                yield place, source, None
                continue
            try:
                yield place, load_image(source), None
            except LatentCriticError as error:
                yield place, None, f"{source.name}: {error.got}"
