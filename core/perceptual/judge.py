"""psi of the built-in judge: maps of its frozen CNN. It ships with the package, so it works offline.

The maps that the judge's score is made of, each place's channels brought to unit length and compared as LPIPS does
(Zhang et al., 2018), without weights per channel: none were fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..nets import judge_file
from .maps import check_pixels, unit, unit_distance

if TYPE_CHECKING:
    from ..nets.efficientnet_lite import EfficientNetLite0
    from .contract import Space

SHIPPED = Path(__file__).parents[1] / "assets" / "judge" / "judge.safetensors"
LEAST_SIDE = 16
#: Stem and stages up to stride 16, fine to coarse: deeper maps say what is seen, and hardly how well.
LAYERS = (0, 1, 2, 3, 4, 5)


class JudgeMaps(nn.Module):
    """The judge's CNN as one module from pixels to maps, for a host to hold and place.

    Args:
        backbone: Frozen.
        layers: Which of its maps, by number.
    """

    def __init__(self, backbone: EfficientNetLite0, layers: tuple[int, ...] = LAYERS) -> None:
        super().__init__()
        self.backbone, self.layers = backbone, layers

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Pixels [N, 3, H, W] in [0, 1] → the maps, fine to coarse."""
        maps = self.backbone.features(pixels, self.layers[-1] + 1)
        return tuple(maps[layer] for layer in self.layers)

    @classmethod
    def load(cls, path: str | Path = SHIPPED, ops: Any = nn, layers: tuple[int, ...] = LAYERS) -> JudgeMaps:
        """The shipped judge's CNN, or that of a judge of one's own.

        Raises:
            UnreadableFile: no judge at ``path``.
        """
        return cls(judge_file.read(path, ops)[0].backbone, layers).eval().requires_grad_(False)


class JudgePsi:
    """psi of the judge; a :class:`~.contract.Psi`.

    Args:
        network: :class:`JudgeMaps`, or a host's stand-in for it.
        weights: Digest of the file that it came from.
        layers: Which maps the network gives, for the identity.
    """

    name = "judge"
    space: Space = "pixels"
    through_denoiser = False

    def __init__(self, network: nn.Module, weights: str, layers: tuple[int, ...] = LAYERS) -> None:
        self._network = network
        self.networks: tuple[nn.Module, ...] = (network,)
        self.identity = f"judge {weights} layers {','.join(map(str, layers))}"

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> JudgePsi:
        """The shipped judge's CNN on the CPU.

        Raises:
            UnreadableFile: no judge at ``path``.
        """
        return cls(JudgeMaps.load(path), judge_file.digest(path))

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pixels [N, 3, H, W] → unit-length maps [N, C, h, w]."""
        check_pixels(x, LEAST_SIDE)
        return tuple(unit(values) for values in self._network(x))

    def distance(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        """Mean squared distance of unit vectors, [N]."""
        return unit_distance(a, b, weight)
