"""A small neural network as a regressor: a few seeds of one hidden layer each, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ridge import Decomposition

#: Directions of the features that the networks see; networks; hidden units of each.
DIRECTIONS, MEMBERS, WIDTH = 128, 5, 48
#: Weight decays tried.
DECAYS = (0.01, 0.1, 1.0)
_STEPS, _RATE, _DROP = 300, 5e-3, 0.3


@dataclass(frozen=True, slots=True)
class Mlp:
    """Directions [R] → members × (hidden layer, GELU, one value), averaged.

    Attributes:
        mean: [D] of the training rows.
        directions: [D, R], scaled so that the training rows have unit variance along the leading one.
        hidden: [members, R, units].
        bias: [members, 1, units].
        out: [members, units, 1].
        centre: Mean and deviation of the targets.
    """

    mean: Tensor
    directions: Tensor
    hidden: Tensor
    bias: Tensor
    out: Tensor
    centre: tuple[float, float]

    kind = "mlp"

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled rows [M, D] → predictions [M], and the members' disagreement [M] in units of the targets' variance."""
        members = _forward((x.double() - self.mean) @ self.directions, self.hidden, self.bias, self.out)
        middle, deviation = self.centre
        return middle + deviation * members.mean(0), members.var(0, correction=0)

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        found = {f"mlp.{name}": getattr(self, name) for name in _FIELDS}
        return {**found, "mlp.centre": torch.tensor(self.centre, dtype=torch.float64)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Mlp:
        """The inverse of :meth:`tensors`."""
        middle, deviation = tensors["mlp.centre"].tolist()
        mean, directions, hidden, bias, out = (tensors[f"mlp.{name}"].double() for name in _FIELDS)
        return cls(mean, directions, hidden, bias, out, (middle, deviation))


_FIELDS = ("mean", "directions", "hidden", "bias", "out")


def _forward(x: Tensor, hidden: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """[N, R] → [members, N]."""
    return (F.gelu(x @ hidden + bias) @ out)[..., 0]


class MlpPath:
    """Every weight decay; what :mod:`.fit` cross-validates. Trained in fp64 on the CPU, by its own seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def path(self, x: Tensor, y: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """Fit on rows [N, D] and targets [N]; predictions and doubts for ``unseen`` [M, D], both [M, candidates]."""
        found = [self.fit(x, y, candidate)(unseen) for candidate in range(len(DECAYS))]
        return torch.stack([values for values, _ in found], 1), torch.stack([doubts for _, doubts in found], 1)

    def fit(self, x: Tensor, y: Tensor, candidate: int) -> Mlp:
        """One of them, on rows [N, D] and targets [N]."""
        parts = Decomposition.of(x.double())
        leading = (parts.energy[0] / parts.rows).sqrt() if len(parts.energy) else torch.tensor(1.0)
        directions = (parts.basis[:, :DIRECTIONS] / leading).contiguous()
        middle, deviation = float(y.mean()), float(y.std(correction=0))
        # Executors run nodes in inference mode, where nothing can be trained.
        with torch.inference_mode(False), torch.enable_grad():
            inside = ((x.double() - parts.mean) @ directions).clone()
            weights = self._train(inside, ((y.double() - middle) / deviation).clone(), DECAYS[candidate])
        return Mlp(parts.mean, directions, *weights, centre=(middle, deviation))

    def _train(self, x: Tensor, y: Tensor, decay: float) -> tuple[Tensor, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(self._seed)

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64) * fan**-0.5)

        features = x.shape[1]
        hidden = weight(MEMBERS, features, WIDTH, fan=features)
        bias = nn.Parameter(torch.zeros(MEMBERS, 1, WIDTH, dtype=torch.float64))
        out = weight(MEMBERS, WIDTH, 1, fan=WIDTH)
        optimiser = torch.optim.AdamW([hidden, bias, out], lr=_RATE, weight_decay=decay)
        cycle = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
        for _ in range(_STEPS):
            kept = (torch.rand(MEMBERS, *x.shape, generator=draw, dtype=torch.float64) >= _DROP) / (1.0 - _DROP)
            loss = F.smooth_l1_loss(_forward(x * kept, hidden, bias, out), y.expand(MEMBERS, -1), beta=0.5)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
        return hidden.detach(), bias.detach(), out.detach()

    def describe(self, candidate: int) -> dict[str, Any]:
        """What a candidate is, for the report."""
        return {"decay": DECAYS[candidate], "members": MEMBERS, "units": WIDTH}
