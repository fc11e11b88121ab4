"""One change to how the judge's head is fitted on frozen features: what it is, and the head that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.ladder import CLEAN, Rung
from ..nets.judge import JudgeHead, of_map
from .judge_head import HeadSettings, Loss, Member, begun, fit_member, merge
from .judge_losses import TuneLosses, fidelity_loss, ladder_loss, rated_loss
from .judge_reduce import reduced
from .judge_rungs import factors, pairs

#: Ratings alone: what every change is held against.
PLAIN = TuneLosses(smooth=1.0, mse=0.0, plcc=0.0)
#: Pairs of ladders, and pairs of like content, that a batch sees.
_PAIRS = 48


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from the fit to ratings alone.

    Attributes:
        name: In a word or two.
        losses: What counts.
        average: Decay of the weights' moving average; 0 for none.
        rank: Of the head's squeeze; 0 for none.
        mirrored: Scores are those of the picture and of its mirror image, averaged.
        natural: The naturalness of the picture is blended in.
        tasks: Weight of what ladders teach without anybody's opinion, told out of the same hidden layer: the kind of
            damage, and by how much a picture was enlarged.
        maps: Places of the trunk's maps (0 the stem's, 8 the head's) that the head reads; all when empty.
    """

    name: str
    losses: TuneLosses = PLAIN
    average: float = 0.0
    rank: int = 0
    mirrored: bool = False
    natural: bool = False
    tasks: float = 0.0
    maps: tuple[int, ...] = ()

    @property
    def learns_ladders(self) -> bool:
        """Whether there have to be ladders."""
        return self.losses.ladders > 0 or self.tasks > 0

    def also(self, other: Change) -> Change:
        """Both changes at once; where both replace the loss of a rating, the later one does."""
        mine, theirs = self.losses, other.losses
        first = theirs if (theirs.smooth, theirs.mse, theirs.norm_in_norm) != (1.0, 0.0, 0.0) else mine
        losses = TuneLosses(
            smooth=first.smooth,
            mse=first.mse,
            norm_in_norm=first.norm_in_norm,
            rank=max(mine.rank, theirs.rank),
            plcc=max(mine.plcc, theirs.plcc),
            fidelity=max(mine.fidelity, theirs.fidelity),
            ladders=max(mine.ladders, theirs.ladders),
        )
        return Change(
            f"{self.name}, {other.name}",
            losses,
            max(self.average, other.average),
            self.rank or other.rank,
            self.mirrored or other.mirrored,
            self.natural or other.natural,
            max(self.tasks, other.tasks),
            self.maps or other.maps,
        )


CHANGES: tuple[Change, ...] = (
    Change("squared error", replace(PLAIN, smooth=0.0, mse=1.0)),
    Change("norm-in-norm", replace(PLAIN, smooth=0.5, norm_in_norm=2.0)),
    Change("PLCC", replace(PLAIN, plcc=0.5)),
    Change("ranking", replace(PLAIN, rank=0.5)),
    Change("pairs of like content", replace(PLAIN, fidelity=1.0)),
    Change("ladders of damage", replace(PLAIN, ladders=0.5)),
    Change("kind and extent of damage", tasks=0.2),
    Change("weight averaging", average=0.99),
    Change("squeezed head", rank=64),
    Change("mirror image too", mirrored=True),
    Change("naturalness", natural=True),
)
#: What the deep and the fine maps are worth: each without the others. No candidates for the shipped head.
MAPS: tuple[Change, ...] = (
    Change("the six finest maps alone", maps=(0, 1, 2, 3, 4, 5)),
    Change("the three deepest maps alone", maps=(6, 7, 8)),
    Change("the deepest map alone", maps=(8,)),
)


@dataclass(frozen=True, slots=True)
class LadderRows:
    """Described rungs of ladders.

    Attributes:
        ladders: The rungs; in a row they are the rows of ``described``.
        described: [rungs, 2 D].
    """

    ladders: Sequence[Sequence[Rung]]
    described: Tensor

    def part(self, families: Sequence[str], held: bool, share: int) -> LadderRows:
        """Ladders of these families, of contents that are held back (one group in ``share``) or of the others."""
        kept, rows, start = [], [], 0
        for ladder in self.ladders:
            if ladder[-1].family in families and ladder[-1].is_held_back(share) == held:
                kept.append(ladder)
                rows.append(self.described[start : start + len(ladder)])
            start += len(ladder)
        return LadderRows(kept, torch.cat(rows) if rows else self.described[:0])


def fit_changed(
    described: Tensor,
    mos: Tensor,
    groups: Sequence[int],
    settings: HeadSettings,
    change: Change,
    ladders: LadderRows | None = None,
) -> JudgeHead:
    """Descriptions [n, 2 D], ratings [n] and contents → a head, as :func:`~.judge_head.fit_head` but for the change.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    head = begun(described, mos, settings)
    seen = _seen(change).repeat(2)
    inputs = head.standardised(described) * seen
    beside = _Beside.of(head, change, ladders)
    loss = _loss(head, inputs, mos, groups, change, ladders, beside)
    tasks = 0 if beside is None else 1 + len(beside.kinds)
    members = []
    for number in range(settings.members):
        seed = settings.seed + number
        member = fit_member(inputs, mos, settings, seed, loss=loss, average=change.average, tasks=tasks)
        members.append((member.hidden, member.out))
    merge(head, members)
    head = head.eval().requires_grad_(False)
    head.hidden.weight *= seen  # what was never seen says nothing
    return reduced(head, described, min(change.rank, head.width)) if change.rank else head


def _seen(change: Change) -> Tensor:
    """[D] ones where the head reads a view's statistics."""
    places = of_map()
    return torch.isin(places, torch.tensor(change.maps or places.unique().tolist())).float()


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a rung of a ladder is known to be without anybody's opinion.

    Attributes:
        rows: Standardised descriptions of the rungs.
        kinds: The kinds of damage in them, and none.
        kind: [rungs] places in ``kinds``.
        factor: [rungs] logarithms (base 2) of the hidden scale factor; NaN where there is none.
    """

    rows: Tensor
    kinds: tuple[str, ...]
    kind: Tensor
    factor: Tensor

    @classmethod
    def of(cls, head: JudgeHead, change: Change, ladders: LadderRows | None) -> _Beside | None:
        if not change.tasks or ladders is None or not len(ladders.ladders):
            return None
        rungs = [rung for ladder in ladders.ladders for rung in ladder]
        named = [CLEAN if rung.level == 0 else rung.kind for rung in rungs]
        kinds = tuple(sorted(set(named)))
        kind = torch.tensor([kinds.index(name) for name in named])
        return cls(head.standardised(ladders.described), kinds, kind, torch.tensor(factors(rungs)))

    def loss(self, member: Member) -> Tensor:
        """Cross-entropy of the kind, squared error of the factor; of some rungs drawn at random."""
        drawn = torch.randint(len(self.rows), (_PAIRS,))
        told, factor = member.told(self.rows[drawn]), self.factor[drawn]
        found = F.cross_entropy(told[:, 1:], self.kind[drawn])
        known = factor.isfinite()
        return found + F.mse_loss(told[:, 0][known], factor[known]) if bool(known.any()) else found


def _loss(
    head: JudgeHead,
    inputs: Tensor,
    mos: Tensor,
    groups: Sequence[int],
    change: Change,
    ladders: LadderRows | None,
    beside: _Beside | None,
) -> Loss:
    losses, deviation = change.losses, float(mos.std())
    plain, nobody = replace(losses, fidelity=0.0), torch.zeros(0, 2, dtype=torch.long)
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    rows = None
    ends: list[Tensor] = []
    if ladders is not None and len(ladders.ladders) and losses.ladders:
        rows = head.standardised(ladders.described)
        ends = [torch.tensor(side) for side in pairs(ladders.ladders, 0)]

    def loss(member: Member, places: Tensor) -> Tensor:
        scores = member(inputs[places])
        found = rated_loss(scores, mos[places], nobody, deviation, plain)
        if losses.fidelity:
            mates = torch.tensor([_mate(members[groups[place]]) for place in places[:_PAIRS].tolist()])
            theirs = member(inputs[mates])
            count = len(mates)
            apart = (mos[places[:count]] - mos[mates]) / deviation
            found = found + losses.fidelity * fidelity_loss((scores[:count] - theirs) / deviation, apart)
        if rows is not None:
            drawn = torch.randint(len(ends[0]), (_PAIRS,))
            better, worse = (member(rows[side[drawn]]) for side in ends[:2])
            found = found + losses.ladders * ladder_loss(better, worse, ends[2][drawn], deviation)
        if beside is not None:
            found = found + change.tasks * beside.loss(member)
        return found

    return loss


def _mate(like: list[int]) -> int:
    return like[int(torch.randint(len(like), (1,)))]
