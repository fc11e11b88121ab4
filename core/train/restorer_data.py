"""Pairs of a damaged picture and the clean one, the same for one seed and step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.distortions import SEVERITIES, distort
from .ldm.pictures import Collection, Picture, load_collection, random_crop, step_generator
from .restorer_request import RestorerRequest

#: Pixels around a crop that are damaged with it and cut off, so that a blur's border is not learnt.
_MARGIN = 8
#: Marks the draws of held-back pairs; no step of training has a negative number.
_HELD = -1


def collection(request: RestorerRequest) -> Collection:
    """The pictures, at most ``request.most`` pixels along the shorter side.

    Raises:
        BadInput: too few pictures that are large enough.
        UnreadableFile: a picture or the manifest cannot be read.
    """
    return load_collection(request.pictures, request.shape.native + 2 * _MARGIN, request.most, request.every)


def names_digest(found: Collection) -> str:
    """Which pictures are trained on and which are held back."""
    names = [[picture.name for picture in part] for part in (found.train, found.held_back)]
    return hashlib.sha256(repr(names).encode()).hexdigest()[:16]


def pairs(
    pictures: Sequence[Picture], request: RestorerRequest, step: int, places: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The pairs at these places of a step: damaged, clean; float32 [n, 3, side, side] in [0, 1]."""
    found = [_pair(pictures, request, step_generator(request.seed, step, place)) for place in places]
    return torch.stack([damaged for damaged, _ in found]), torch.stack([clean for _, clean in found])


def _pair(pictures: Sequence[Picture], request: RestorerRequest, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    picture = pictures[_below(len(pictures), generator)]
    clean = random_crop(picture.pixels, request.shape.native + 2 * _MARGIN, generator)
    kind = request.kinds[_below(len(request.kinds), generator)]
    severity = SEVERITIES[_below(len(SEVERITIES), generator)]
    untouched = float(torch.rand((), generator=generator)) < request.untouched
    damaged = clean if untouched else distort(clean, kind, severity, _below(2**31, generator))
    return _cut(damaged), _cut(clean)


def held_back_pairs(pictures: Sequence[Picture], request: RestorerRequest) -> tuple[Tensor, Tensor]:
    """``request.validate_on`` pairs of held-back pictures, every kind and severity in turn; as :func:`pairs`."""
    damaged, cleans = [], []
    for place in range(request.validate_on):
        generator = step_generator(request.seed, _HELD, place)
        clean = random_crop(pictures[place % len(pictures)].pixels, request.shape.native + 2 * _MARGIN, generator)
        kind = request.kinds[place % len(request.kinds)]
        severity = SEVERITIES[place // len(request.kinds) % len(SEVERITIES)]
        damaged.append(_cut(distort(clean, kind, severity, place)))
        cleans.append(_cut(clean))
    return torch.stack(damaged), torch.stack(cleans)


def _cut(image: Tensor) -> Tensor:
    return image[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _below(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (), generator=generator))
