"""The two energies of a guided step, bound to a batch: how far the clean estimate is from the picture.

‖y − D(z)‖² over the pixels (or ‖E(y) − z‖² over the latent, without decoding), and psi's distance between y and D(z)
(or between the latents themselves, for a psi that works on them). The formulas take z0|t for the first and z' for the
second, so the two share no decoder forward; psi(y) is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..backbone.contracts import Backbone
    from ..perceptual.contract import Psi
    from .calls import Calls


class Term(Protocol):
    """One energy.

    Attributes:
        name: ``measurement`` or ``perceptual``.
        zeta: Its strength, > 0.
        floor: An energy too small to speak of: growth is measured from no less.
        decoder: Whether it decodes.
        denoiser: Whether its gradient passes through the denoiser.
        networks: psi's own networks.
    """

    name: str
    zeta: float
    floor: float
    decoder: bool
    denoiser: bool
    networks: tuple[nn.Module, ...]

    def energy(self, z: Tensor, rows: slice) -> Tensor:
        """Clean estimates of these rows [n, C, h, w] → squared energies [n], differentiable."""
        ...

    def went_back(self) -> None:
        """Count one backward."""
        ...


def ordinary(values: Tensor) -> Tensor:
    """A tensor that autograd may save: a copy of one that was made in inference mode, any other as it is."""
    return values.clone() if values.is_inference() and not torch.is_inference_mode_enabled() else values


@dataclass(slots=True)
class Decoding:
    """The decoder that the pixel terms share, counting."""

    backbone: Backbone
    tiny: bool
    calls: Calls

    def __call__(self, z: Tensor) -> Tensor:
        """Latents → pixels, part of the caller's graph."""
        self.calls.decoder += 1
        if self.tiny:
            return self.backbone.decode(z, differentiable=True, tiny=True)
        return self.backbone.decode(z, differentiable=True)


class Measurement:
    """‖y − D(z)‖², summed over a row: a latent value's gradient is then the same at every resolution.

    Args:
        zeta: Strength.
        reference: y as pixels, or as a latent when there is no ``decode``.
        weight: [N, 1, H, W] in pixels, or ``None``.
        decode: The decoder; without it latents are compared.
        calls: Where to count.
    """

    name, denoiser, networks = "measurement", False, ()

    def __init__(
        self, zeta: float, reference: Tensor, weight: Tensor | None, decode: Decoding | None, calls: Calls
    ) -> None:
        self.zeta, self.decoder = zeta, decode is not None
        self._reference, self._decode, self._calls = reference, decode, calls
        self._weight = (
            None
            if weight is None
            else F.adaptive_avg_pool2d(weight.float(), (reference.shape[-2], reference.shape[-1]))
        )
        self.floor = 1e-4 * reference[0].numel()

    def energy(self, z: Tensor, rows: slice) -> Tensor:
        """Sum of squared differences, each place times its weight, [n]."""
        found = z if self._decode is None else self._decode(z)
        squares = (found - ordinary(self._reference[rows]).to(found)).square()
        if self._weight is not None:
            squares = squares * ordinary(self._weight[rows]).to(found)
        return squares.flatten(1).sum(1)

    def went_back(self) -> None:
        """Count one backward."""
        self._calls.decoder_backward += self.decoder


class Perceptual:
    """psi's distance between the picture and the clean estimate.

    Args:
        zeta: Strength.
        psi: The feature extractor.
        reference: psi of the picture, all rows.
        weight: [N, 1, H, W] in pixels, or ``None``.
        decode: The decoder; ``None`` for a psi of latents.
        calls: Where to count.
    """

    name = "perceptual"

    def __init__(
        self,
        zeta: float,
        psi: Psi,
        reference: tuple[Tensor, ...],
        weight: Tensor | None,
        decode: Decoding | None,
        calls: Calls,
    ) -> None:
        self.zeta, self.decoder = zeta, decode is not None
        self.denoiser, self.networks = psi.through_denoiser, psi.networks
        self._psi, self._reference, self._weight, self._decode, self._calls = psi, reference, weight, decode, calls
        self.floor = 1e-3

    def energy(self, z: Tensor, rows: slice) -> Tensor:
        """psi's squared distance, [n]."""
        found = z if self._decode is None else self._decode(z)
        self._calls.psi += 1
        reference = tuple(ordinary(values[rows]) for values in self._reference)
        weight = None if self._weight is None else ordinary(self._weight[rows])
        return self._psi.distance(self._psi.features(found), reference, weight)

    def went_back(self) -> None:
        """Count one backward."""
        self._calls.decoder_backward += self.decoder
        self._calls.psi_backward += 1
