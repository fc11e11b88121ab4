"""Which pictures a step sees: split by content, drawn by (seed, step), loaded and mirrored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.rated import RatedImage, RatedSet
from ..data.split import split_by_group
from ..errors import BadInput
from ..methods.judge import SHIPPED
from ..nets.judge_file import digest, read
from .content import content_groups, united
from .features import FeatureCache
from .genziqa_request import GenzRequest

if TYPE_CHECKING:
    from ..methods.genziqa_head import GenzHead

_PER_GROUP = 25


@dataclass(frozen=True, slots=True)
class Part:
    """One set's pictures: those trained on and those held back.

    Attributes:
        name: The set's.
        train: Trained on.
        held: Held back.
    """

    name: str
    train: tuple[RatedImage, ...]
    held: tuple[RatedImage, ...]

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
    """

    image: RatedImage
    timestep: int
    noise: int
    mirrored: bool


def split(request: GenzRequest) -> list[Part]:
    """Every set in two, no content and no group on both sides; each side in an order drawn by the seed.

    A table of ratings is often sorted, and gain, offset and validation take the first pictures of a side.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    return [_split_one(_limited(found, request), request) for found in request.data]


def split_digest(parts: Sequence[Part]) -> str:
    """16 hex digits that tell which pictures are held back, of which sets, and in which order all come."""
    told = [[part.name, *([str(image.path) for image in side] for side in (part.train, part.held))] for part in parts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def held_back_of(head: GenzHead, data: RatedSet) -> tuple[RatedImage, ...]:
    """The pictures of a set that a head's training held back, by what its file says of that.

    Raises:
        BadInput: it says nothing, or the split was by content, which needs the features of that time.
    """
    told = head.meta.settings.get("training", {})
    if not {"seed", "share", "limit"} <= set(told) or told.get("by_content"):
        got = "a split by content" if told.get("by_content") else "a head that does not tell them"
        raise BadInput("a head that tells seed, share and limit of its split", got, "Train it again without --content.")
    request = GenzRequest(
        (data,), Path("none.safetensors"), Path("none"), share=told["share"], limit=told["limit"], seed=told["seed"]
    )
    return split(request)[0].held


def _limited(data: RatedSet, request: GenzRequest) -> RatedSet:
    if request.limit is None or len(data.images) <= request.limit:
        return data
    order = np.random.default_rng([request.seed, 1]).permutation(len(data.images))[: request.limit]
    return RatedSet(data.name, tuple(data.images[place] for place in sorted(order)))


def _split_one(data: RatedSet, request: GenzRequest) -> Part:
    groups = [image.group for image in data.images]
    numbers: Sequence[str | int] = groups if request.content is None else _contents(data, request)
    kept, held = split_by_group(numbers, request.share, request.seed)
    mixed = np.random.default_rng([request.seed, 3])
    part = Part(data.name, *(tuple(data.images[i] for i in mixed.permutation(side)) for side in (kept, held)))
    for side in (part.train, part.held):
        if len(side) < 2 or len({image.mos for image in side}) < 2:
            raise BadInput(f"pictures of different ratings in both parts of {data.name}", str(len(side)), "Add some.")
    return part


def _contents(data: RatedSet, request: GenzRequest) -> list[int]:
    """Groups of like content by the judge's features, and the set's own groups together."""
    assert request.content is not None
    backbone = read(SHIPPED)[0].backbone.half().float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cache = FeatureCache(request.content, digest(SHIPPED), 100)
    paths = [image.path for image in data.images]
    cache.extract(backbone, paths)
    clusters = content_groups(cache.load(paths).whole, _PER_GROUP, request.seed)
    return united(clusters, [image.group for image in data.images], request.share)


def draw(parts: Sequence[Part], request: GenzRequest, step: int) -> tuple[int, list[Drawn]]:
    """The set that a step trains on (by its share of the pictures), and its pictures."""
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
    return place, found
