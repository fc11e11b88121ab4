"""Which pictures a step sees: split by content, drawn by (seed, step), some of them mirrored or damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.distortions import SEVERITIES
from ..data.rated import RatedImage, RatedSet
from ..data.split import split_by_group
from ..errors import BadInput
from .content_of import kept_contents
from .genziqa_request import GenzRequest

if TYPE_CHECKING:
    from ..methods.genziqa_head import GenzHead

#: Pictures that are damaged for ladders: each form of them is encoded once, which costs as much as several forwards.
_LADDERS_ON = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One set's pictures: those trained on and those held back.

    Attributes:
        name: The set's.
        train: Trained on.
        held: Held back; what is kept is chosen by these.
        unseen: Held back too, for figures that no choice saw; empty where a training has none.
    """

    name: str
    train: tuple[RatedImage, ...]
    held: tuple[RatedImage, ...]
    unseen: tuple[RatedImage, ...] = ()

    @property
    def deviation(self) -> float:
        """Standard deviation of the ratings trained on, at least 1."""
        return max(1.0, float(np.std([image.mos for image in self.train])))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture of a step.

    Attributes:
        image: The picture.
        timestep: Its noise level.
        noise: Seed of its noise.
        mirrored: Whether it is mirrored.
        kind: Of damage; ``None`` for the picture as it is.
        severity: Of the damage, 0 to 5.
    """

    image: RatedImage
    timestep: int
    noise: int
    mirrored: bool
    kind: str | None = None
    severity: int = 0


def split(request: GenzRequest) -> list[Part]:
    """Every set in three, no content and no group in two of them; each part in an order drawn by the seed.

    A table of ratings is often sorted, and gain, offset and validation take the first pictures of a side.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    return [_split_one(_limited(found, request), request) for found in request.data]


def split_digest(parts: Sequence[Part]) -> str:
    """16 hex digits that tell which pictures are held back, of which sets, and in which order all come."""
    told = []
    for part in parts:
        sides = (part.train, part.held, part.unseen) if part.unseen else (part.train, part.held)
        told.append([part.name, *([str(image.path) for image in side] for side in sides)])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def names_digest(images: Sequence[RatedImage]) -> str:
    """16 hex digits of pictures' names in their order, the same wherever the set lies."""
    return hashlib.sha256(json.dumps([image.path.name for image in images]).encode()).hexdigest()[:16]


def unseen_of(head: GenzHead, data: RatedSet, folder: Path) -> tuple[RatedImage, ...]:
    """The pictures of a set that neither a head's training nor its choice saw, by what its file says of the split.

    For a head of a training that cut off no such part (the shipped one), all that was held back, which chose its step.

    Args:
        head: As its training wrote it.
        data: The first set that it was trained on, as it was given there.
        folder: Where contents are kept; the training's run folder has them.

    Raises:
        BadInput: it does not say, or these are other pictures than those.
    """
    told = head.meta.settings.get("training", {})
    if not {"seed", "share", "limit", "by_content"} <= set(told):
        raise BadInput("a head that tells seed, share and limit of its split", "one that does not", "Train it again.")
    request = GenzRequest(
        (data,), Path("none.safetensors"), folder, share=told["share"], limit=told["limit"], seed=told["seed"],
        content=told["by_content"],
    )  # fmt: skip
    if "unseen" not in told:
        return _all_aside(_limited(data, request), request)
    found = split(request)[0].unseen
    if names_digest(found) != told["unseen"]:
        raise BadInput("the pictures that its training cut off", "others", "Give the same set and the run's folder.")
    return found


def drawn_for(head: GenzHead, data: RatedSet) -> set[str]:
    """Names of a set's pictures that a head's training drew at all, to train on or to hold back.

    Raises:
        BadInput: the head's file does not say what it drew.
    """
    told = head.meta.settings.get("training", {})
    if not {"seed", "limit"} <= set(told):
        raise BadInput("a head that tells seed and limit of its training", "one that does not", "Train it again.")
    return {image.path.name for image in _drawn(data, told["limit"], told["seed"]).images}


def _all_aside(data: RatedSet, request: GenzRequest) -> tuple[RatedImage, ...]:
    kept, aside = split_by_group([image.group for image in data.images], request.share, request.seed)
    mixed = np.random.default_rng([request.seed, 3])
    mixed.permutation(kept)
    return tuple(data.images[i] for i in mixed.permutation(aside))


def _limited(data: RatedSet, request: GenzRequest) -> RatedSet:
    return _drawn(data, request.limit, request.seed)


def _drawn(data: RatedSet, limit: int | None, seed: int) -> RatedSet:
    if limit is None or len(data.images) <= limit:
        return data
    order = np.random.default_rng([seed, 1]).permutation(len(data.images))[:limit]
    return RatedSet(data.name, tuple(data.images[place] for place in sorted(order)))


def _split_one(data: RatedSet, request: GenzRequest) -> Part:
    numbers: Sequence[str | int] = [image.group for image in data.images]
    if request.content:
        numbers = kept_contents(data.images, request.run, request.share, request.seed)
    kept, aside = split_by_group(numbers, request.share, request.seed)
    held, unseen = ([aside[i] for i in half] for half in split_by_group([numbers[i] for i in aside], 0.5, request.seed))
    mixed = np.random.default_rng([request.seed, 3])
    sides = (tuple(data.images[i] for i in mixed.permutation(side)) for side in (kept, held, unseen))
    part = Part(data.name, *sides)
    for side in (part.train, part.held, part.unseen):
        if len(side) < 2 or len({image.mos for image in side}) < 2:
            raise BadInput(f"pictures of different ratings in each part of {data.name}", str(len(side)), "Add some.")
    return part


def draw(parts: Sequence[Part], request: GenzRequest, step: int) -> tuple[int, list[Drawn]]:
    """The set that a step trains on (by its share of the pictures), its pictures, and behind them its ladders."""
    random = np.random.default_rng([request.seed, 2, step])
    sizes = np.array([len(part.train) for part in parts], dtype=float)
    place = int(random.choice(len(parts), p=sizes / sizes.sum()))
    images = parts[place].train
    picked = random.choice(len(images), size=min(request.batch, len(images)), replace=False)
    levels = request.training_levels
    one = int(random.choice(levels))
    found = []
    for number in picked:
        level = one if request.one_level else int(random.choice(levels))
        noise, mirrored = int(random.integers(2**31)), bool(request.flip and random.random() < 0.5)
        found.append(Drawn(images[int(number)], level, noise, mirrored))
    return place, found + _ladders(images, request, step, one)


def _ladders(images: Sequence[RatedImage], request: GenzRequest, step: int, level: int) -> list[Drawn]:
    """Pairs, less and more damaged, of one level and one noise."""
    random = np.random.default_rng([request.seed, 4, step])
    found = []
    for _ in range(request.ladders):
        image = images[int(random.integers(min(_LADDERS_ON, len(images))))]
        kind = str(random.choice(request.ladder_kinds))
        less, more = sorted(random.choice((0, *SEVERITIES), size=2, replace=False).tolist())
        one = Drawn(image, level, int(random.integers(2**31)), False, kind, less)
        found += [one, replace(one, severity=more)]
    return found
