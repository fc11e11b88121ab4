"""One change to how the judge's head is fitted on frozen features: what it is, and the head that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.ladder import Rung
from ..nets.judge import JudgeHead
from .judge_head import HeadSettings, Loss, Member, begun, fit_member, merge
from .judge_losses import TuneLosses, fidelity_loss, ladder_loss, rated_loss
from .judge_reduce import reduced
from .judge_tune_data import pairs

#: What the shipped head is fitted to.
PLAIN = TuneLosses(smooth=1.0, mse=0.0, plcc=0.0)
#: Pairs of ladders, and pairs of like content, that a batch sees.
_PAIRS = 48


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from the shipped head's fit.

    Attributes:
        name: In a word or two.
        losses: What counts.
        average: Decay of the weights' moving average; 0 for none.
        rank: Of the head's squeeze; 0 for none.
        mirrored: Scores are those of the picture and of its mirror image, averaged.
        natural: The naturalness of the picture is blended in.
    """

    name: str
    losses: TuneLosses = PLAIN
    average: float = 0.0
    rank: int = 0
    mirrored: bool = False
    natural: bool = False

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
        )


CHANGES: tuple[Change, ...] = (
    Change("squared error", replace(PLAIN, smooth=0.0, mse=1.0)),
    Change("norm-in-norm", replace(PLAIN, smooth=0.5, norm_in_norm=2.0)),
    Change("PLCC", replace(PLAIN, plcc=0.5)),
    Change("ranking", replace(PLAIN, rank=0.5)),
    Change("pairs of like content", replace(PLAIN, fidelity=1.0)),
    Change("ladders of damage", replace(PLAIN, ladders=0.5)),
    Change("weight averaging", average=0.99),
    Change("squeezed head", rank=64),
    Change("mirror image too", mirrored=True),
    Change("naturalness", natural=True),
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
        """Ladders of these families, of contents that are held back (one in ``share``) or of the others."""
        kept, rows, start = [], [], 0
        for ladder in self.ladders:
            if ladder[-1].family in families and (int(ladder[0].content, 16) % share == 0) == held:
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
    inputs = head.standardised(described)
    loss = _loss(head, inputs, mos, groups, change, ladders)
    members = []
    for number in range(settings.members):
        member = fit_member(inputs, mos, settings, settings.seed + number, loss=loss, average=change.average)
        members.append((member.hidden, member.out))
    merge(head, members)
    head = head.eval().requires_grad_(False)
    return reduced(head, described, min(change.rank, head.width)) if change.rank else head


def _loss(
    head: JudgeHead, inputs: Tensor, mos: Tensor, groups: Sequence[int], change: Change, ladders: LadderRows | None
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
            beside = member(inputs[mates])
            count = len(mates)
            apart = (mos[places[:count]] - mos[mates]) / deviation
            found = found + losses.fidelity * fidelity_loss((scores[:count] - beside) / deviation, apart)
        if rows is not None:
            drawn = torch.randint(len(ends[0]), (_PAIRS,))
            better, worse = (member(rows[side[drawn]]) for side in ends[:2])
            found = found + losses.ladders * ladder_loss(better, worse, ends[2][drawn], deviation)
        return found

    return loss


def _mate(like: list[int]) -> int:
    return like[int(torch.randint(len(like), (1,)))]
