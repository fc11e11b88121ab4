"""What the trained part of the judge sees of a picture: pixels, or the maps of the stages that stay frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import BadInput
from ..files import whole_file
from ..images import load_image
from ..nets.efficientnet_lite import EfficientNetLite0
from ..nets.judge import describe, statistics
from ..nets.views import SIDE, crops, global_view, mirrored
from .features import content_of

#: Places to begin the training at, from the first layer to the last.
PLACES = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7", "last")


@dataclass(frozen=True, slots=True)
class Sight:
    """One picture's views.

    Attributes:
        crops: [K, C, h, w] what goes into the trained part, of native-scale crops.
        crops_before: [K, P] statistics of the frozen maps; P = 0 when everything is trained.
        whole: [1, C, h', w'] of the global view.
        whole_before: [1, P].
    """

    crops: Tensor
    crops_before: Tensor
    whole: Tensor
    whole_before: Tensor

    def some(self, places: Sequence[int]) -> Sight:
        """With these crops alone."""
        picked = list(places)
        return Sight(self.crops[picked], self.crops_before[picked], self.whole, self.whole_before)


class Trunk:
    """EfficientNet-Lite0 cut in two: frozen up to a place, trained from it on.

    Raises:
        BadInput: no such place.
    """

    def __init__(self, network: EfficientNetLite0, place: str) -> None:
        if place not in PLACES:
            raise BadInput(f"a place out of {', '.join(PLACES)}", repr(place), "stem trains everything.")
        self.network, self.first = network, PLACES.index(place)

    @property
    def trained(self) -> dict[str, nn.Module]:
        """The trained parts by name."""
        parts = {"stem": self.network.stem}
        parts |= {f"stage{number + 1}": stage for number, stage in enumerate(self.network.stages)}
        parts |= {"last": self.network.head}
        return {name: part for name, part in parts.items() if PLACES.index(name) >= self.first}

    @torch.no_grad()
    def before(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Views [N, 3, h, w] → what goes into the trained part, and the statistics of the maps before it [N, P]."""
        if self.first == 0:
            return pixels, pixels.new_zeros(len(pixels), 0)
        maps = self.network.features(pixels.contiguous(memory_format=torch.channels_last), self.first)
        return maps[-1], statistics(maps)

    def after(self, cut: Tensor, before: Tensor) -> Tensor:
        """The trained part: → statistics of all maps [N, D], with gradients."""
        cut = cut.contiguous(memory_format=torch.channels_last)
        if self.first == 0:
            return statistics(self.network.features(cut))
        return torch.cat([before, statistics(self.network.onward(cut, self.first - 1))], dim=1)

    def rows(self, views: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Stacks of (cut, before) of one or more shapes → statistics of each stack; like shapes share a forward."""
        found: dict[int, Tensor] = {}
        for shape in dict.fromkeys(cut.shape[1:] for cut, _ in views):
            places = [place for place, (cut, _) in enumerate(views) if cut.shape[1:] == shape]
            both = [torch.cat(parts) for parts in zip(*(views[place] for place in places), strict=True)]
            parts = self.after(both[0], both[1]).split([len(views[place][0]) for place in places])
            found.update(zip(places, parts, strict=True))
        return [found[place] for place in range(len(views))]


def sight(trunk: Trunk, views: Tensor, whole: Tensor, device: torch.device) -> Sight:
    """Crops [K, 3, h, w] and global view [1, 3, h', w'] through the frozen part."""
    return Sight(*trunk.before(views.to(device)), *trunk.before(whole.to(device)))


def random_views(
    image: Tensor, count: int, side: int, places: Sequence[tuple[float, float]], mirror: bool
) -> tuple[Tensor, Tensor]:
    """Native-scale crops at random places and the global view; one crop where a picture is no larger than that.

    Args:
        image: [3, H, W].
        count: Crops.
        side: Of a crop, px.
        places: As many (down, right) in [0, 1).
        mirror: Left and right changed.
    """
    image = image.flip(2) if mirror else image
    large = mirrored(image, side)
    height, width = large.shape[1:]
    views = []
    for down, right in places[: 1 if (height, width) == (side, side) else count]:
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        views.append(large[:, top : top + side, left : left + side])
    return torch.stack(views).clamp(0.0, 1.0), global_view(image)


def described(trunk: Trunk, looks: Sequence[Sight]) -> Tensor:
    """Views of n pictures → what the head reads [n, 2 D], with gradients."""
    stacks = [(look.crops, look.crops_before) for look in looks] + [(look.whole, look.whole_before) for look in looks]
    rows = trunk.rows(stacks)
    count = len(looks)
    return torch.cat([describe(crops[None], whole) for crops, whole in zip(rows[:count], rows[count:], strict=True)])


@dataclass(frozen=True, slots=True)
class SightStore:
    """Pictures by the grid of views that scores are made of; the frozen part's maps may be kept in a folder.

    Attributes:
        trunk: Where it is cut.
        device: Where its frozen part runs.
        folder: For one file a picture, fp16; ``None`` computes every time.
        tag: What identifies the frozen weights.
    """

    trunk: Trunk
    device: torch.device
    folder: Path | None = None
    tag: str = ""

    def grid(self, path: Path) -> Sight:
        """One picture as it is scored. A torn file is made again.

        Raises:
            UnreadableFile: the picture cannot be read.
        """
        if self.folder is None or self.trunk.first == 0:
            return self._made(path)
        name = f"{content_of(path)[:24]}-{PLACES[self.trunk.first]}-{self.tag}-{SIDE}.safetensors"
        file = self.folder / name
        kept = ("crops", "crops_before", "whole", "whole_before")
        if file.exists():
            try:
                tensors = load_file(file)
                return Sight(*(tensors[key].to(self.device, torch.float32) for key in kept))
            except (SafetensorError, KeyError):
                file.unlink()
        made = self._made(path)
        with whole_file(file) as temporary:
            save_file({key: getattr(made, key).half().cpu().contiguous() for key in kept}, temporary)
        return made

    def _made(self, path: Path) -> Sight:
        image = load_image(path)
        return sight(self.trunk, crops(image), global_view(image), self.device)
