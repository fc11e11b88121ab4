"""Fit the judge's head: an ensemble of one-hidden-layer networks over frozen descriptions, merged into one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import BadInput
from ..nets.efficientnet_lite import MAP_CHANNELS
from ..nets.judge import JudgeHead
from .judge_reduce import reduced

_LEAST = 20


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """How a head is fitted; the defaults are what the validation part chose for the shipped one.

    Attributes:
        members: Networks in the ensemble, one seed each.
        width: Hidden units of one member.
        epochs: Passes over the pictures.
        batch: Pictures per step.
        rate: Highest learning rate (one cycle).
        decay: Weight decay (AdamW).
        drop_input: Share of inputs dropped.
        drop_hidden: Share of hidden units dropped.
        seed: Of the first member; the next ones count on.
        rank: Units of the squeeze that makes the head small afterwards; 0 for none. See ``judge_reduce.py``.

    Raises:
        BadInput: no members, units, epochs or pictures.
    """

    members: int = 2
    width: int = 192
    epochs: int = 6
    batch: int = 128
    rate: float = 1e-3
    decay: float = 0.05
    drop_input: float = 0.3
    drop_hidden: float = 0.5
    seed: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        if min(self.members, self.width, self.epochs, self.batch) < 1:
            got = f"members {self.members}, width {self.width}, epochs {self.epochs}, batch {self.batch}"
            raise BadInput("members, width, epochs and batch of at least 1", got, "Raise them.")


def fit_head(
    descriptions: Tensor,
    mos: Tensor,
    settings: HeadSettings,
    watch: Callable[[int, int], None] | None = None,
    channels: Sequence[int] = MAP_CHANNELS,
) -> JudgeHead:
    """Descriptions [n, 2 D] and ratings [n] in 0…100 → a head that gives scores in 0…100.

    The loss is smooth L1 of the score. The global random state is left as it was. ``channels`` are those of the trunk's
    maps.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    head = begun(descriptions, mos, settings, channels)
    inputs = head.standardised(descriptions)
    steps = settings.members * settings.epochs
    members = []
    for number in range(settings.members):
        tick = None if watch is None else (lambda done, at=number: watch(at * settings.epochs + done, steps))
        seed, loss = settings.seed + number, _rating_loss(inputs, mos)
        member = fit_member(inputs, mos, settings, seed, loss=loss, tick=tick)
        members.append((member.hidden, member.out))
    merge(head, members)
    return squeezed(head.eval().requires_grad_(False), descriptions, settings)


def squeezed(head: JudgeHead, descriptions: Tensor, settings: HeadSettings) -> JudgeHead:
    """The head made as small as its settings want, on the descriptions that it was fitted to."""
    return reduced(head, descriptions, min(settings.rank, head.width)) if settings.rank else head


def begun(
    descriptions: Tensor, mos: Tensor, settings: HeadSettings, channels: Sequence[int] = MAP_CHANNELS
) -> JudgeHead:
    """A head with its centre and scale set, its weights still to be fitted.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
    """
    if len(descriptions) < _LEAST or float(mos.std()) == 0.0:
        got = f"{len(descriptions)} pictures rated {float(mos.min()):g} to {float(mos.max()):g}"
        raise BadInput(f"at least {_LEAST} pictures with different ratings", got, "Rate more pictures.")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten later
        head = JudgeHead(settings.members * settings.width, channels=channels)
    head.centre.copy_(descriptions.mean(dim=0))
    head.scale.copy_(descriptions.std(dim=0) + 1e-4)
    return head


class Member(nn.Module):
    """One network of the ensemble: standardised descriptions → scores in 0…100, with dropout.

    Args:
        inputs: Length of a description.
        settings: Of the head.
        mos: [n], where it begins.
        tasks: Values that it tells beside the score, out of the same hidden layer; dropped afterwards.
    """

    def __init__(self, inputs: int, settings: HeadSettings, mos: Tensor, tasks: int = 0) -> None:
        super().__init__()
        self.settings = settings
        self.hidden, self.out = nn.Linear(inputs, settings.width), nn.Linear(settings.width, 1)
        start_at_the_mean(self.out, mos)
        self.beside = nn.Linear(settings.width, tasks) if tasks else None

    def inner(self, inputs: Tensor) -> Tensor:
        """Rows [n, 2 D] → the hidden layer [n, width]."""
        seen = F.dropout(inputs, self.settings.drop_input)
        return F.dropout(F.gelu(self.hidden(seen)), self.settings.drop_hidden)

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows [n, 2 D] → scores [n]."""
        return 100.0 * torch.sigmoid(self.out(self.inner(inputs))[:, 0])

    def told(self, inputs: Tensor) -> Tensor:
        """Rows [n, 2 D] → what it tells beside the score, [n, tasks]."""
        assert self.beside is not None
        return self.beside(self.inner(inputs))


#: A member and the places of a batch → its loss.
Loss = Callable[[Member, Tensor], Tensor]


def fit_member(
    inputs: Tensor,
    mos: Tensor,
    settings: HeadSettings,
    seed: int,
    *,
    loss: Loss,
    average: float = 0.0,
    tasks: int = 0,
    tick: Callable[[int], None] | None = None,
) -> Member:
    """Walk one member through the epochs; the random state is its own.

    Args:
        inputs: Standardised descriptions [n, 2 D].
        mos: [n], where it begins.
        settings: Of the head.
        seed: Of this member.
        loss: Of a batch.
        average: Decay of a moving average of the weights, which is returned in their place; 0 for none.
        tasks: Values told beside the score.
        tick: Called after each epoch with their number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        member = Member(inputs.shape[1], settings, mos, tasks)
        optimiser = torch.optim.AdamW(member.parameters(), lr=settings.rate, weight_decay=settings.decay)
        batch = min(settings.batch, len(inputs))
        rounds = len(inputs) // batch
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.rate, total_steps=settings.epochs * rounds, pct_start=0.1
        )
        kept = AveragedModel(member, multi_avg_fn=get_ema_multi_avg_fn(average)) if average else None
        for epoch in range(settings.epochs):
            for places in torch.randperm(len(inputs))[: rounds * batch].view(rounds, batch):
                optimiser.zero_grad()
                loss(member, places).backward()
                optimiser.step()
                cycle.step()
                if kept is not None:
                    kept.update_parameters(member)
            if tick is not None:
                tick(epoch + 1)
    if kept is not None:
        member.load_state_dict(kept.module.state_dict())
    return member


def _rating_loss(inputs: Tensor, mos: Tensor) -> Loss:
    """Smooth L1 of the score, in deviations of the ratings."""

    def loss(member: Member, places: Tensor) -> Tensor:
        return F.smooth_l1_loss(member(inputs[places]) / mos.std(), mos[places] / mos.std(), beta=0.5)

    return loss


def start_at_the_mean(out: nn.Linear, mos: Tensor) -> None:
    """Begin at the mean rating."""
    mean = float(mos.mean().clamp(1.0, 99.0)) / 100.0
    nn.init.constant_(out.bias, math.log(mean / (1.0 - mean)))


@torch.no_grad()
def merge(head: JudgeHead, members: list[tuple[nn.Linear, nn.Linear]]) -> None:
    """The mean of the members' logits, written as one wider layer."""
    head.hidden.weight.copy_(torch.cat([hidden.weight for hidden, _ in members]))
    head.hidden.bias.copy_(torch.cat([hidden.bias for hidden, _ in members]))
    head.out.weight.copy_(torch.cat([out.weight for _, out in members], dim=1) / len(members))
    head.out.bias.copy_(torch.stack([out.bias for _, out in members]).mean(dim=0))
