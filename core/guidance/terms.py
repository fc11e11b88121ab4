"""The two energies of a guided step, bound to a batch: how far the clean estimate is from the picture.

‖y − D(z)‖² over the pixels (or ‖E(y) − z‖² over the latent, without decoding), and psi's distance between y and D(z)
(or between the latents themselves, for a psi that works on them). The formulas take z0|t for the first and z' for the
second, so the two share no decoder forward; psi(y) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..backbone.contracts import Backbone
    from ..perceptual.contract import Psi
    from .calls import Calls
    from .tiles import Tile

#: Calls its argument with (first, last) over all rows, as many at a time as fit.
Chunks: TypeAlias = Callable[[Callable[[int, int], None]], None]


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

    def energy(self, z: Tensor, rows: slice, tile: Tile | None = None) -> Tensor:
        """Clean estimates of these rows [n, C, h, w], or their outer tile → squared energies [n], differentiable.

        The energies of all tiles of a latent add up to about that of the whole.
        """
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
        return self.backbone.decode(z, differentiable=True, tiny=self.tiny)

    def plain(self, z: Tensor) -> Tensor:
        """Latents → pixels, for a picture that was not given."""
        self.calls.decoder += 1
        return self.backbone.decode(z, tiny=self.tiny)


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

    def energy(self, z: Tensor, rows: slice, tile: Tile | None = None) -> Tensor:
        """Sum of squared differences, each place times its weight, [n]."""
        found = z if self._decode is None else self._decode(z)
        reference, weight = self._reference[rows], None if self._weight is None else self._weight[rows]
        if tile is not None:
            found, reference = tile.drop_overlap(found), tile.take_inner(reference)
            weight = None if weight is None else tile.take_inner(weight)
        squares = (found - ordinary(reference).to(found)).square()
        if weight is not None:
            squares = squares * ordinary(weight).to(found)
        return squares.flatten(1).sum(1)

    def went_back(self) -> None:
        """Count one backward."""
        self._calls.decoder_backward += self.decoder


class Perceptual:
    """psi's distance between the picture and the clean estimate.

    Args:
        zeta: Strength.
        psi: The feature extractor.
        picture: What psi takes, of all rows; its features are computed here, once, and wait in main memory: a CNN's
            maps of all rows would crowd out the chunks that memory is planned for.
        weight: [N, 1, H, W] in pixels, or ``None``.
        decode: The decoder; ``None`` for a psi of latents.
        calls: Where to count.
        chunks: Calls its argument with (first, last) over all rows, as many at a time as fit.
    """

    name = "perceptual"

    def __init__(
        self,
        zeta: float,
        psi: Psi,
        picture: Tensor,
        weight: Tensor | None,
        decode: Decoding | None,
        calls: Calls,
        chunks: Chunks,
    ) -> None:
        self.zeta, self.decoder, self.floor = zeta, decode is not None, 1e-3
        self.denoiser, self.networks = psi.through_denoiser, psi.networks
        self._psi, self._picture, self._weight, self._decode, self._calls = psi, picture, weight, decode, calls
        self._reference = joined(lambda x: tuple(values.cpu() for values in self._features(x)), picture, chunks)

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        self._calls.psi += 1
        return self._psi.features(x)

    def energy(self, z: Tensor, rows: slice, tile: Tile | None = None) -> Tensor:
        """psi's squared distance, [n]."""
        found = z if self._decode is None else self._decode(z)
        weight = None if self._weight is None else ordinary(self._weight[rows])
        if tile is None:
            reference = tuple(ordinary(values[rows].to(z.device)) for values in self._reference)
            return self._psi.distance(self._features(found), reference, weight)
        part = None if weight is None else tile.take_inner(weight)
        with torch.no_grad():
            reference = self._features(ordinary(tile.take_inner(self._picture[rows])))
        distance = self._psi.distance(self._features(tile.drop_overlap(found)), reference, part)
        return distance * _share(tile, weight, part).to(distance)

    def went_back(self) -> None:
        """Count one backward."""
        self._calls.decoder_backward += self.decoder
        self._calls.psi_backward += 1


def joined(work: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, chunks: Chunks) -> tuple[Tensor, ...]:
    """``work`` over all rows, chunk by chunk, put together again."""
    parts: dict[int, tuple[Tensor, ...]] = {}

    def one(first: int, last: int) -> None:
        parts[first] = work(x[first:last])

    chunks(one)
    return tuple(torch.cat(layer) for layer in zip(*(parts[first] for first in sorted(parts)), strict=True))


def _share(tile: Tile, weight: Tensor | None, part: Tensor | None) -> Tensor:
    """How much of a picture's weight a tile holds, [n] or []."""
    if weight is None or part is None:
        (top, bottom, left, right), (height, width) = tile.inner, tile.grid
        return torch.tensor((bottom - top) * (right - left) / (height * width))
    whole = weight.flatten(1).sum(1)
    return part.flatten(1).sum(1) / torch.where(whole > 0, whole, torch.ones_like(whole))
