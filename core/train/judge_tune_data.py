"""Which pictures a step of the judge's fine-tuning sees; everything is drawn by (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..data.ladder import Rung, read_ladders
from .judge_rungs import HELD_BACK_SHARE, check_sides
from .judge_tune_request import TuneRequest

_RUNGS = 3


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of a step.

    Attributes:
        rated: Places of rated pictures.
        mates: [pairs, 2] places within ``rated`` of pictures of like content.
        ladders: Rungs of some ladders, least damage first.
    """

    rated: list[int]
    mates: Tensor
    ladders: list[list[Rung]]


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be drawn.

    Attributes:
        kept: Places of the rated pictures that are trained on.
        groups: Content of every rated picture.
        learned: Ladders that are trained on.
        held: Ladders of other contents, of every family, for measuring.
    """

    kept: list[int]
    groups: list[int]
    learned: list[list[Rung]]
    held: list[list[Rung]]


def pool(request: TuneRequest, kept: Sequence[int], groups: Sequence[int]) -> Pool:
    """Ratings and ladders of a request.

    Raises:
        BadInput: no ladders in their folder, or all of their groups on one side.
    """
    ladders = [] if request.ladders is None else read_ladders(request.ladders)
    if ladders:
        check_sides(ladders, HELD_BACK_SHARE)
    held = [ladder for ladder in ladders if ladder[-1].is_held_back(HELD_BACK_SHARE)]
    learned = [
        ladder
        for ladder in ladders
        if not ladder[-1].is_held_back(HELD_BACK_SHARE) and ladder[-1].family not in request.leave_out
    ]
    return Pool(list(kept), list(groups), learned, held)


def draw(found: Pool, request: TuneRequest, step: int) -> Drawn:
    """Rated pictures by permutations of all of them, some with a picture of like content beside them; then ladders."""
    batch = min(request.batch, len(found.kept))
    wanted = int(batch * request.mates / 2)
    base = batch - wanted
    a_pass = max(1, len(found.kept) // base)
    order = np.random.default_rng([request.seed, 2, step // a_pass]).permutation(len(found.kept))
    first = step % a_pass * base
    rated = [found.kept[place] for place in order[first : first + base]]
    generator = np.random.default_rng([request.seed, 3, step])
    for place in rated[:wanted]:
        like = [other for other in _members(found, place) if other not in rated]
        if like:
            rated.append(like[int(generator.integers(len(like)))])
    pairs = [pair for pair in combinations(range(len(rated)), 2) if _alike(found, rated, pair)]
    mates = torch.tensor(pairs, dtype=torch.long).view(-1, 2)
    ladders: list[list[Rung]] = []
    if found.learned and (request.losses.ladders or request.losses.factor):
        picked = generator.integers(len(found.learned), size=request.contents).tolist()
        ladders += [_some(found.learned[at], generator) for at in picked]
    return Drawn(rated, mates, ladders)


def _members(found: Pool, place: int) -> list[int]:
    return [other for other in found.kept if found.groups[other] == found.groups[place]]


def _alike(found: Pool, rated: Sequence[int], pair: tuple[int, int]) -> bool:
    return found.groups[rated[pair[0]]] == found.groups[rated[pair[1]]]


def _some(ladder: list[Rung], generator: np.random.Generator) -> list[Rung]:
    if len(ladder) <= _RUNGS:
        return ladder
    return [ladder[at] for at in sorted(generator.choice(len(ladder), _RUNGS, replace=False).tolist())]
