"""psi of LPIPS (Zhang et al., CVPR 2018, version 0.1): VGG16 or AlexNet with the published channel weights.

The channel weights ship; the network's ImageNet weights come from torchvision's cache or a file. Written from the
paper; equal to the PyPI package ``lpips`` with ``normalize=True``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..nets.imagenet import LEAST_SIDE, Name, load_maps
from .linear import lpips_weights
from .maps import check_pair, check_pixels, mean_over_places, unit

if TYPE_CHECKING:
    from torch import Tensor

    from .contract import Space

#: LPIPS standardises pixels in [-1, 1] by these.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LpipsPsi:
    """psi of LPIPS; a :class:`~.contract.Psi`.

    Args:
        network: From standardised pixels to five maps: an :class:`~..nets.imagenet.ImageNetMaps` or a stand-in.
        weights: Digest of its weights.
        backbone: Which network it is.
    """

    name = "lpips"
    space: Space = "pixels"
    through_denoiser = False

    def __init__(self, network: nn.Module, weights: str, backbone: Name = "vgg16") -> None:
        self._network, self._least = network, LEAST_SIDE[backbone]
        self._linear = lpips_weights(backbone)
        self.networks: tuple[nn.Module, ...] = (network,)
        self.identity = f"lpips 0.1 {backbone} {weights}"

    @classmethod
    def load(cls, path: str | Path | None = None, backbone: Name = "vgg16", ops: Any = nn) -> LpipsPsi:
        """From torchvision's cache, or from a file.

        Raises:
            UnreadableFile: no such weights.
        """
        return cls(*load_maps(backbone, path, ops=ops), backbone)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pixels [N, 3, H, W] in [0, 1] → five maps of unit vectors."""
        check_pixels(x, self._least)
        shift, scale = (torch.tensor(values).to(x).view(3, 1, 1) for values in (_SHIFT, _SCALE))
        return tuple(unit(values) for values in self._network((2.0 * x - 1.0 - shift) / scale))

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """LPIPS [N]: the sum over layers of the mean over places of weighted squared differences."""
        check_pair(a, b)
        layers = []
        for x, y, channels in zip(a, b, self._linear, strict=True):
            squares = (x - y).square() * channels.to(x).view(-1, 1, 1)
            layers.append(mean_over_places(squares.sum(1, keepdim=True), weight))
        return torch.cat(layers, dim=1).sum(dim=1)
