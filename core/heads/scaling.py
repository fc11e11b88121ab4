"""Features brought to one scale before a regressor sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Layout

#: A feature whose deviation is below this share of its size carries rounding errors only.
_DEAD = 1e-6


@dataclass(frozen=True, slots=True)
class Scaler:
    """(features - centre) * gain, so that the mean squared length of a training row is about 1.

    Attributes:
        centre: [D] mean over the training pictures.
        gain: [D] 1 / deviation times the weight of the feature's slot; 0 for a feature that does not vary.
    """

    centre: Tensor
    gain: Tensor

    @classmethod
    def fit(cls, features: Tensor, layout: Layout) -> Scaler:
        """Over the rows of [N, D]. Every slot gets the same say, however many channels its tap has."""
        features = features.double()
        centre = features.mean(0)
        deviation = features.std(0, correction=0)
        alive = deviation > _DEAD * features.abs().mean(0)
        weight = torch.cat([torch.full((slot.size,), slot.size**-0.5, dtype=torch.float64) for slot in layout.slots])
        gain = torch.where(alive, weight / deviation.clamp_min(1e-300), torch.zeros_like(weight))
        return cls(centre, gain / len(layout.slots) ** 0.5)

    def __call__(self, features: Tensor) -> Tensor:
        """[N, D] in any float dtype → [N, D] in fp64."""
        return (features.double() - self.centre) * self.gain

    def tensors(self) -> dict[str, Tensor]:
        """For a file."""
        return {"scaler.centre": self.centre, "scaler.gain": self.gain}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Scaler:
        """The inverse of :meth:`tensors`."""
        return cls(tensors["scaler.centre"].double(), tensors["scaler.gain"].double())
