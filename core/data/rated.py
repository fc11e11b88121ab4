"""A picture with a rating, and the checks that every loader's result goes through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import BadInput, UnreadableFile

Split = Literal["train", "test", "all"]


@dataclass(frozen=True, slots=True)
class RatedImage:
    """One picture and what people said of it.

    Attributes:
        path: The file.
        mos: Mean opinion score, mapped to 0 (worst) … 100 (best).
        group: Pictures of one group show one content and never lie on both sides of a split.
        split: The official part that it belongs to.
    """

    path: Path
    mos: float
    group: str
    split: Split


@dataclass(frozen=True, slots=True)
class RatedSet:
    """A data set's name and its pictures, in the order of its list."""

    name: str
    images: tuple[RatedImage, ...]

    def part(self, split: Split) -> RatedSet:
        """The pictures of one official part; ``all`` gives every one.

        Raises:
            BadInput: the set has no such part.
        """
        found = self.images if split == "all" else tuple(image for image in self.images if image.split == split)
        if not found:
            parts = ", ".join(sorted({image.split for image in self.images}))
            raise BadInput(f"a part of {self.name}: {parts}", repr(split), "Choose one of these, or all.")
        return RatedSet(self.name, found)


def checked(name: str, images: Sequence[RatedImage]) -> RatedSet:
    """A set whose pictures exist, have one rating each, and lie on the scale.

    Raises:
        BadInput: no pictures, a name twice, or a rating outside 0 to 100.
        UnreadableFile: pictures of the list are missing.
    """
    if not images:
        raise BadInput(f"rated pictures in {name}", "none", "Check the folder and its list of ratings.")
    seen: set[Path] = set()
    for image in images:
        if image.path in seen:
            raise BadInput(f"one rating per picture in {name}", f"{image.path.name} twice", "Remove one of the rows.")
        seen.add(image.path)
        if not (math.isfinite(image.mos) and 0.0 <= image.mos <= 100.0):
            raise BadInput(
                f"ratings on the scale of {name}",
                f"{image.mos:g} (of 0 to 100) for {image.path.name}",
                "Give the lowest and highest possible rating of the list.",
            )
    missing = [image.path.name for image in images if not image.path.is_file()]
    if missing:
        raise UnreadableFile(
            f"every picture of {name}",
            f"{len(missing)} of {len(images)} missing, such as {missing[0]}",
            "Complete the download, or take their rows out of the list.",
        )
    return RatedSet(name, tuple(images))
