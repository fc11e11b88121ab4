"""The judge's head taught by ladders of damage beside the ratings, on frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..benchmark.agreement import Agreement, agreement
from ..benchmark.significance import Comparison, compare
from ..data.ladder import FAMILIES, read_ladders
from ..errors import BadInput
from ..nets.judge import JudgeHead
from .judge_changes import PLAIN, Change, LadderRows, fit_changed
from .judge_head import squeezed
from .judge_order import ordered
from .judge_rungs import HELD_BACK_SHARE, check_sides

if TYPE_CHECKING:
    from .judge import Material
    from .judge_request import JudgeRequest


@dataclass(frozen=True, slots=True)
class DamageLessons:
    """What ladders count beside the ratings.

    Attributes:
        ladders: Folder, made by ``latent-critic train judge-ladders``.
        order: Of the ranking loss within a ladder.
        tasks: Of telling the kind of damage, and by how much a picture was enlarged.
        rank: Of the ranking of rated pictures beside their ratings.
        norm: Of their norm-in-norm loss, likewise.
        smooth: Of the rating's own loss, smooth L1.
        average: Decay of the weights' moving average; 0 for none.
    """

    ladders: Path
    order: float = 0.5
    tasks: float = 0.0
    rank: float = 0.0
    norm: float = 0.0
    smooth: float = 1.0
    average: float = 0.0

    def __post_init__(self) -> None:
        finite = all(math.isfinite(weight) and weight >= 0 for weight in self.weights.values())
        if not (finite and self.order + self.tasks > 0 and self.average < 1):
            got = ", ".join(f"{name} {weight}" for name, weight in self.weights.items())
            raise BadInput("finite weights ≥ 0, of order or tasks above 0, and an average below 1", got, "Change them.")

    @property
    def weights(self) -> dict[str, float]:
        """By name, as files tell them."""
        return {name: float(getattr(self, name)) for name in WEIGHTS}

    @property
    def change(self) -> Change:
        """Of the plain fit."""
        losses = replace(PLAIN, ladders=self.order, rank=self.rank, norm_in_norm=self.norm, smooth=self.smooth)
        return Change("ladders of damage", losses, average=self.average, tasks=self.tasks)


#: What counts in :class:`DamageLessons`, by name.
WEIGHTS = tuple(one.name for one in fields(DamageLessons) if one.name != "ladders")


@dataclass(frozen=True, slots=True)
class DamageGain:
    """What ladders brought, on held-back pictures and on held-back contents of ladders.

    Attributes:
        agreement: SRCC taught (by ladders, and by ranking where that counts) less SRCC of the head of ratings alone,
            paired, over contents.
        plain, taught: In how many steps of growing damage the score of either falls.
    """

    agreement: Comparison
    plain: dict[str, float]
    taught: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"agreement": self.agreement.to_dict(), "plain": self.plain, "taught": self.taught}


def rungs(folder: Path, found: Material, tick: Callable[[int, int], None] | None = None) -> LadderRows:
    """A folder of ladders, as the frozen trunk sees them.

    Raises:
        BadInput: no ladders in it, or all of their groups on one side.
        UnreadableFile: a picture cannot be read.
    """
    ladders = read_ladders(folder)
    check_sides(ladders, HELD_BACK_SHARE)
    every = [rung.path for ladder in ladders for rung in ladder]
    paths = list(dict.fromkeys(every))  # a content's ladders begin at the same picture
    found.cache.extract(found.backbone, paths, tick)
    place = {path: at for at, path in enumerate(paths)}
    return LadderRows(ladders, found.cache.load(paths).descriptions()[[place[path] for path in every]])


def taught_by_damage(
    request: JudgeRequest,
    found: Material,
    plain: JudgeHead,
    held: Sequence[int],
    tick: Callable[[int, int], None] | None = None,
) -> tuple[JudgeHead, Agreement, DamageGain]:
    """The head of all pictures and ladders, and what ladders brought to one that never saw the held-back ones.

    Args:
        request: With ``damage``.
        found: Pictures and features.
        plain: A head fitted without ladders and without the held-back pictures.
        held: Their places.
        tick: Called with (rungs seen, rungs in all).

    Raises:
        BadInput: no ladders in their folder, or all of their contents are held back.
        UnreadableFile: a picture cannot be read.
    """
    assert request.damage is not None
    rows = rungs(request.damage.ladders, found, tick)
    taught = head_without(request, found, held, rows)
    seen, mos = found.described[list(held)], found.mos[list(held)].tolist()
    with torch.inference_mode():
        before, after = plain(seen).tolist(), taught(seen).tolist()
    apart = compare(after, before, mos, [found.groups[place] for place in held])
    gain = DamageGain(apart, _falls(plain, rows), _falls(taught, rows))
    return _fit(request, found, range(len(found.mos)), rows), agreement(after, mos), gain


def head_without(request: JudgeRequest, found: Material, held: Sequence[int], rows: LadderRows) -> JudgeHead:
    """The head taught by ladders that never saw the pictures at these places."""
    kept = sorted(set(range(len(found.mos))) - set(held))
    return _fit(request, found, kept, rows)


def _fit(request: JudgeRequest, found: Material, places: Sequence[int], rows: LadderRows) -> JudgeHead:
    """Of these pictures and of the ladders whose contents are not held back."""
    assert request.damage is not None
    picked = list(places)
    groups, described = [found.groups[place] for place in picked], found.described[picked]
    learned = rows.part(FAMILIES, False, HELD_BACK_SHARE)
    head = fit_changed(described, found.mos[picked], groups, request.settings, request.damage.change, learned)
    return squeezed(head, described, request.settings)


def _falls(head: JudgeHead, rows: LadderRows) -> dict[str, float]:
    return ordered(head, rows.part(FAMILIES, True, HELD_BACK_SHARE))
