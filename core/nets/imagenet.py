"""VGG16 and AlexNet up to their last ReLU, under torchvision's names, so that its ImageNet weights load as they are.

Simonyan & Zisserman, 2015 (configuration D); Krizhevsky, 2014 ("one weird trick"). Only what LPIPS and DISTS read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UnreadableFile

Name: TypeAlias = Literal["vgg16", "alexnet"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and its ReLU.

    Attributes:
        number: Its place in torchvision's ``features``.
        wide_in: Input channels.
        wide_out: Output channels.
        kernel: Side of the kernel.
        stride: Its stride.
        padding: Its padding.
        pool: Whether a pooling goes before it.
        read: Whether the ReLU's output is one of the five maps.
    """

    number: int
    wide_in: int
    wide_out: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: bool = False
    read: bool = False


def _vgg16() -> tuple[Layer, ...]:
    layers, number, wide_in = [], 0, 3
    for stage, (wide, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for place in range(count):
            layers.append(Layer(number, wide_in, wide, pool=stage > 0 and place == 0, read=place == count - 1))
            number, wide_in = number + 2, wide
        number += 1
    return tuple(layers)


LAYERS: dict[str, tuple[Layer, ...]] = {
    "vgg16": _vgg16(),
    "alexnet": (
        Layer(0, 3, 64, 11, 4, 2, read=True),
        Layer(3, 64, 192, 5, 1, 2, pool=True, read=True),
        Layer(6, 192, 384, pool=True, read=True),
        Layer(8, 384, 256, read=True),
        Layer(10, 256, 256, read=True),
    ),
}
#: torchvision's file of each network's ImageNet weights, and the side below which its last map is empty.
FILES = {"vgg16": "vgg16-397923af.pth", "alexnet": "alexnet-owt-7be5be79.pth"}
LEAST_SIDE = {"vgg16": 16, "alexnet": 32}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageNetMaps(nn.Module):
    """Five ReLU maps, fine to coarse.

    Args:
        name: Which network.
        hanning: Pool by the root of Hann-weighted mean squares instead of the maximum, as DISTS does.
        ops: A namespace with ``Conv2d``: ``torch.nn``, or a host's casting layers.
    """

    hann: Tensor

    def __init__(self, name: Name, *, hanning: bool = False, ops: Any = nn) -> None:
        super().__init__()
        self.layers, self._maximum = LAYERS[name], 2 if name == "vgg16" else 3
        self.features = nn.ModuleDict(
            {
                str(at.number): ops.Conv2d(at.wide_in, at.wide_out, at.kernel, stride=at.stride, padding=at.padding)
                for at in self.layers
            }
        )
        window = torch.tensor([0.5, 1.0, 0.5])
        self.register_buffer("hann", (window[:, None] * window) / 4.0, persistent=False)
        self._hanning = hanning

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Standardised pixels [N, 3, H, W] → five maps."""
        maps = []
        for layer in self.layers:
            x = F.relu(self.features[str(layer.number)](self._pooled(x) if layer.pool else x))
            if layer.read:
                maps.append(x)
        return tuple(maps)

    def _pooled(self, x: Tensor) -> Tensor:
        if not self._hanning:
            return F.max_pool2d(x, self._maximum, 2)
        channels = x.shape[1]
        window = self.hann.to(x).expand(channels, 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def cached_file(name: Name) -> Path:
    """Where torchvision keeps this network's weights once it has fetched them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILES[name]


def load_maps(
    name: Name, path: str | Path | None = None, *, hanning: bool = False, ops: Any = nn
) -> tuple[ImageNetMaps, str]:
    """A network with weights, and the first 16 hex digits of their SHA-256. Nothing is downloaded.

    Args:
        name: Which network.
        path: torchvision's ``.pth`` or a safetensors file with its names; torchvision's cache when left out.
        hanning: As in :class:`ImageNetMaps`.
        ops: As in :class:`ImageNetMaps`.

    Raises:
        UnreadableFile: no such file, or one of another network.
    """
    file = cached_file(name) if path is None else Path(path)
    network = ImageNetMaps(name, hanning=hanning, ops=ops)
    try:
        state = load_file(file) if file.suffix == ".safetensors" else _load_pth(file)
        wanted = {key: state[key].float() for key in network.state_dict()}
        network.load_state_dict(wanted)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, EOFError, AttributeError) as error:
        got = f"no file {file}" if not file.exists() else f"{type(error).__name__} in {file}: {error}"
        raise UnreadableFile(
            f"torchvision's ImageNet weights of {name} ({FILES[name]})",
            got,
            f"Fetch https://download.pytorch.org/models/{FILES[name]} into that folder, or name the file.",
        ) from error
    digest = hashlib.sha256()
    for key in sorted(wanted):
        digest.update(wanted[key].contiguous().numpy().tobytes())
    return network.eval().requires_grad_(False), digest.hexdigest()[:16]


def _load_pth(file: Path) -> dict[str, Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)
