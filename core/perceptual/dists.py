"""psi of DISTS (Ding et al., TPAMI 2020): texture and structure of VGG16's maps, with the published weights.

The weights alpha and beta ship; VGG16's ImageNet weights come from torchvision's cache or a file. Written from the
paper; equal to the authors' PyPI package ``DISTS-pytorch``. With means μ, variances v and covariance c over a map,
1 − S1 = (μx − μy)² / (μx² + μy² + c1) and 1 − S2 = var(x − y) / (vx + vy + c2): the same numbers, and exactly 0 for
equal pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..nets.imagenet import LEAST_SIDE, MEAN, STD, load_maps
from .linear import dists_weights
from .maps import check_pair, check_pixels, mean_over_places

if TYPE_CHECKING:
    from torch import Tensor

    from .contract import Space

_C = 1e-6


class DistsPsi:
    """psi of DISTS; a :class:`~.contract.Psi`.

    Args:
        network: VGG16 from standardised pixels to five maps, pooling as DISTS does.
        weights: Digest of its weights.
    """

    name = "dists"
    space: Space = "pixels"
    through_denoiser = False

    def __init__(self, network: nn.Module, weights: str) -> None:
        self._network = network
        self._alpha, self._beta = dists_weights()
        self.networks: tuple[nn.Module, ...] = (network,)
        self.identity = f"dists vgg16 {weights}"

    @classmethod
    def load(cls, path: str | Path | None = None, ops: Any = nn) -> DistsPsi:
        """From torchvision's cache, or from a file.

        Raises:
            UnreadableFile: no such weights.
        """
        return cls(*load_maps("vgg16", path, hanning=True, ops=ops))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pixels [N, 3, H, W] in [0, 1] → the pixels themselves and five maps."""
        check_pixels(x, LEAST_SIDE["vgg16"])
        mean, std = (torch.tensor(values).to(x).view(3, 1, 1) for values in (MEAN, STD))
        return (x, *self._network((x - mean) / std))

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """DISTS [N], 0 to about 1; pixels and maps must have the shape of the pictures."""
        check_pair(a, b)
        sizes = [values.shape[1] for values in a]
        total = torch.zeros(len(a[0]), dtype=a[-1].dtype, device=a[-1].device)
        for x, y, alpha, beta in zip(a, b, self._alpha.split(sizes), self._beta.split(sizes), strict=True):
            x, y = x.to(total), y.to(total)
            mx, my = mean_over_places(x, weight), mean_over_places(y, weight)
            dx, dy = x - mx[:, :, None, None], y - my[:, :, None, None]
            texture = (mx - my).square() / (mx.square() + my.square() + _C)
            spread = mean_over_places(dx.square(), weight) + mean_over_places(dy.square(), weight)
            structure = mean_over_places((dx - dy).square(), weight) / (spread + _C)
            total = total + texture @ alpha.to(total) + structure @ beta.to(total)
        return total
