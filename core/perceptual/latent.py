"""psi of the latent itself: differences and local statistics at several scales, without decoding anything.

Ours, not the paper's. It costs no network at all; how near it comes to what people see depends on the VAE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from .maps import check_latents, check_pair, mean_over_places

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .contract import Space

SCALES = 3
_LEAST_SIDE = 4
_WINDOW = 3
#: Keeps the root of a variance differentiable at 0: a hundredth of a latent's unit spread, squared.
_FLOOR = 1e-4


class LatentPsi:
    """psi of latents; a :class:`~.contract.Psi`.

    Args:
        scales: How many; each halves the one before, as long as four cells a side are left.
    """

    name = "latent"
    space: Space = "latent"
    through_denoiser = False
    networks: tuple[nn.Module, ...] = ()

    def __init__(self, scales: int = SCALES) -> None:
        self._scales, self.identity = scales, f"latent scales {scales}"

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Latents [N, C, h, w] → at each scale the latent, its differences along both sides, and local deviations."""
        check_latents(x, _LEAST_SIDE)
        found: list[Tensor] = []
        for _ in range(self._scales):
            mean = F.avg_pool2d(x, _WINDOW, stride=1)
            variance = F.avg_pool2d(x.square(), _WINDOW, stride=1) - mean.square()
            found += [x, x.diff(dim=2), x.diff(dim=3), (variance.clamp_min(0.0) + _FLOOR).sqrt()]
            if min(x.shape[2:]) < 2 * _LEAST_SIDE:
                break
            x = F.avg_pool2d(x, 2)
        return tuple(found)

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """Mean over scales and kinds of the mean squared difference, [N]."""
        check_pair(a, b)
        parts = [mean_over_places((x - y).square().mean(1, keepdim=True), weight) for x, y in zip(a, b, strict=True)]
        return torch.cat(parts, dim=1).mean(dim=1)
