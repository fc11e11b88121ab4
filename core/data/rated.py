"""A picture with a rating, and the checks that every loader's result goes through."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import BadInput, UnreadableFile

Split = Literal["train", "validation", "test", "all"]
#: What ``--split`` may name.
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")
_LISTED = 10


@dataclass(frozen=True, slots=True)
class RatedImage:
    """One picture and what people said of it.

    Attributes:
        path: The file.
        mos: Mean opinion score, mapped to 0 (worst) … 100 (best).
        group: Pictures of one group show one content and never lie on both sides of a split.
        split: The official part that it belongs to; ``all`` where the authors drew no line.
        prompt: The text that it was generated from, where the set has any.
        kind: The damage done to it, or the generator that made it, where the layout says so.
        level: How strong the damage is, 1 (least) upwards, where the layout says so.
    """

    path: Path
    mos: float
    group: str
    split: Split
    prompt: str | None = None
    kind: str | None = None
    level: int | None = None


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

    def sample(self, count: int, seed: int = 0) -> RatedSet:
        """``count`` pictures drawn by the seed, in their order, under a name that says so; all where there are fewer.

        Raises:
            BadInput: fewer than three, of which nothing can be said.
        """
        total = len(self.images)
        if count < 3:
            raise BadInput("3 pictures or more", str(count), "Leave the limit out for all.")
        if count >= total:
            return self
        drawn = sorted(random.Random(seed).sample(range(total), count))
        name = f"{self.name} ({count:,} of {total:,}, seed {seed})"
        return RatedSet(name, tuple(self.images[place] for place in drawn))

    def first(self, count: int) -> RatedSet:
        """The first ``count`` pictures of the list, under a name that says so; features of them may be kept already.

        Raises:
            BadInput: fewer than three.
        """
        total = len(self.images)
        if count < 3:
            raise BadInput("3 pictures or more", str(count), "Leave the limit out for all.")
        return self if count >= total else RatedSet(f"{self.name} (first {count:,} of {total:,})", self.images[:count])

    @property
    def reported(self) -> Split:
        """The part that figures are usually told of: the official test part, or everything where there is none."""
        return "test" if any(image.split == "test" for image in self.images) else "all"


def scaled(value: float, scale: tuple[float, float], name: str, where: str) -> float:
    """A rating between the (worst, best) ends of its scale → 0 (worst) … 100 (best).

    Raises:
        BadInput: it lies outside, or is no finite number.
    """
    worst, best = scale
    # Lists are rounded, and their ends are met exactly: a hair outside is the end itself.
    slack = 1e-6 * abs(best - worst)
    if not (math.isfinite(value) and min(scale) - slack <= value <= max(scale) + slack):
        raise BadInput(
            f"ratings on the scale of {where}",
            f"{value:g} (of {min(scale):g} to {max(scale):g}) for {name}",
            "Give the lowest and highest possible rating of the list.",
        )
    return min(max(100.0 * (value - worst) / (best - worst), 0.0), 100.0)


def find_root(folder: str | Path, name: str, *expected: str) -> Path:
    """Where a set's own layout begins: ``folder``, or the one folder in it that holds everything that is expected.

    Args:
        folder: What the user named.
        name: The set.
        expected: Files and folders that lie there; alternatives are written with ``|`` between them.

    Raises:
        BadInput: not there, empty, or another layout; the error names what was expected.
    """
    folder = Path(folder).expanduser()
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for place in (folder, *inner):
        if all(any((place / option).exists() for option in item.split("|")) for item in expected):
            return place
    words = ", ".join(item.replace("|", " or ") for item in expected)
    if not folder.exists():
        got = f"{folder}, which is not there"
    elif not folder.is_dir():
        got = f"the file {folder}"
    else:
        found = sorted(path.name for path in folder.iterdir())
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        got = f"{folder}, which holds {', '.join(found[:_LISTED])}{more}" if found else f"the empty folder {folder}"
    raise BadInput(f"the folder of {name} as its authors publish it, holding {words}", got, "Name that folder.")


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
        scaled(image.mos, (0.0, 100.0), image.path.name, name)
    missing = [image.path for image in images if not image.path.is_file()]
    if missing:
        names = ", ".join(path.name for path in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise UnreadableFile(
            f"every picture of {name} in {missing[0].parent}",
            f"{len(missing)} of {len(images)} missing: {names}{more}",
            "Complete the download, or take their rows out of the list.",
        )
    return RatedSet(name, tuple(images))
