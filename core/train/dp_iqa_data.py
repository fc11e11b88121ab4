"""Which pictures a head on one rated set is trained and validated on, and which of them a step sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..data.rated import RatedImage, RatedSet
from ..data.split import split_by_group
from ..errors import BadInput
from ..files import write_text
from .content_of import contents
from .genziqa_data import Part


class Choice(Protocol):
    """What a training's request says of its pictures; see :class:`~.dp_iqa_request.DpRequest`."""

    @property
    def data(self) -> RatedSet: ...  # noqa: D102
    @property
    def run(self) -> Path: ...  # noqa: D102
    @property
    def limit(self) -> int | None: ...  # noqa: D102
    @property
    def content(self) -> bool: ...  # noqa: D102
    @property
    def share(self) -> float: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def flip(self) -> bool: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Drawn:
    """One picture of a step."""

    image: RatedImage
    mirrored: bool


def split(request: Choice) -> Part:
    """Trained on and held back: no group on both sides, and no like contents where the request asks for that.

    Each side comes in an order drawn by the seed: a table of ratings is often sorted, and the decoder's first scale,
    its calibration and validation take the first pictures of a side.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
        MissingDependency: scikit-learn is not installed.
    """
    images = request.data.images
    if request.limit is not None and request.limit < len(images):
        order = np.random.default_rng([request.seed, 1]).permutation(len(images))
        images = tuple(images[place] for place in sorted(order[: request.limit].tolist()))
    numbers: Sequence[str | int] = [image.group for image in images]
    if request.content:
        numbers = _contents(images, request)
    kept, held = split_by_group(numbers, request.share, request.seed)
    mixed = np.random.default_rng([request.seed, 4])
    sides = (tuple(images[i] for i in mixed.permutation(side)) for side in (kept, held))
    part = Part(request.data.name, *sides)
    for side in (part.train, part.held):
        if len(side) < 2 or len({image.mos for image in side}) < 2:
            raise BadInput(f"pictures of different ratings in both parts of {part.name}", str(len(side)), "Add some.")
    return part


def _contents(images: Sequence[RatedImage], request: Choice) -> list[int]:
    """Content numbers, kept beside the run's state: they take a forward of the judge's network a picture."""
    told = [[image.path.name, image.group] for image in images] + [request.share, request.seed]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
    file = request.run / f"contents-{key}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    groups = [image.group for image in images]
    found = contents([image.path for image in images], groups, request.share, request.seed)
    write_text(file, json.dumps(found))
    return found


def draw(part: Part, request: Choice, step: int) -> list[Drawn]:
    """The pictures of a step: by permutations of all of them, so that each is seen equally often."""
    count, batch = len(part.train), min(request.batch, len(part.train))
    a_pass = count // batch
    order = np.random.default_rng([request.seed, 2, step // a_pass]).permutation(count)
    first = step % a_pass * batch
    mirrors = np.random.default_rng([request.seed, 3, step]).random(batch) < 0.5
    picked = order[first : first + batch].tolist()
    return [Drawn(part.train[i], bool(request.flip and m)) for i, m in zip(picked, mirrors, strict=True)]
