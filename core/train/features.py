"""A resumable cache of frozen features: shards of pictures on disk, each whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UnreadableFile
from ..files import sweep, whole_file
from ..images import load_image
from ..nets.efficientnet_lite import MAP_CHANNELS, EfficientNetLite
from ..nets.judge import describe, statistics
from ..nets.view_policy import size_policy
from ..nets.views import MOST_CROPS, crops, global_view


@dataclass(frozen=True, slots=True)
class Features:
    """Pooled features of n pictures.

    Attributes:
        crops: [views, D] statistics of every native-scale crop, picture after picture.
        counts: [n] crops of each picture.
        whole: [n, D] statistics of the global views.
    """

    crops: Tensor
    counts: Tensor
    whole: Tensor

    def descriptions(self, channels: Sequence[int] = MAP_CHANNELS) -> Tensor:
        """What the judge's head reads, [n, 2 D] in fp32; ``channels`` are those of the trunk's maps."""
        parts = zip(self.crops.split(self.counts.tolist()), self.whole, strict=True)
        return torch.cat([describe(views[None].float(), whole[None].float(), channels) for views, whole in parts])


def picture_features(network: EfficientNetLite, image: Tensor, most: int = MOST_CROPS) -> tuple[Tensor, Tensor]:
    """One picture [3, H, W] → statistics of its crops [K, D], ``most`` at most, and of its global view [D]."""
    views, whole = crops(image, most), global_view(image)
    if whole.shape[1:] == views.shape[1:]:
        found = statistics(network.features(torch.cat([views, whole]).contiguous(memory_format=torch.channels_last)))
        return found[:-1], found[-1]
    return statistics(network.features(views)), statistics(network.features(whole))[0]


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A folder of shards, known by the bytes of their pictures: names and places do not matter.

    Attributes:
        folder: Where the shards lie; about 42 kB per 512×512 picture.
        tag: What identifies the network's weights: other weights never read these shards.
        shard: Pictures per file.
        most: Native-scale crops of a picture at most.
        mirrored: Look at the pictures' mirror images.
    """

    folder: Path
    tag: str
    shard: int = 100
    most: int = MOST_CROPS
    mirrored: bool = False

    def extract(
        self, network: EfficientNetLite, paths: Sequence[Path], watch: Callable[[int, int], None] | None = None
    ) -> None:
        """Write the shards that are missing. Stopped at any moment, it goes on at the first missing shard.

        Args:
            network: The frozen feature network.
            paths: The pictures, in order.
            watch: Called with (pictures done, pictures in all); may raise to stop.

        Raises:
            UnreadableFile: a picture cannot be read.
        """
        sweep(self.folder)
        done = 0
        for shard in self._shards(paths):
            if not self._path(shard).exists():
                self._write(
                    network, shard, lambda at, start=done: None if watch is None else watch(start + at, len(paths))
                )
            done += len(shard)

    @torch.inference_mode()
    def _write(self, network: EfficientNetLite, shard: Sequence[Path], tick: Callable[[int], None]) -> None:
        found = []
        for place, path in enumerate(shard):
            image = load_image(path)
            found.append(picture_features(network, image.flip(2) if self.mirrored else image, self.most))
            tick(place + 1)
        with whole_file(self._path(shard)) as temporary:
            save_file(
                {
                    "crops": torch.cat([views for views, _ in found]).half(),
                    "counts": torch.tensor([len(views) for views, _ in found]),
                    "whole": torch.stack([whole for _, whole in found]).half(),
                },
                temporary,
            )

    def load(self, paths: Sequence[Path]) -> Features:
        """Read back what :meth:`extract` wrote for these pictures."""
        shards = [load_file(self._path(shard)) for shard in self._shards(paths)]
        return Features(*(torch.cat([shard[key] for shard in shards]) for key in ("crops", "counts", "whole")))

    def _shards(self, paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
        return (paths[start : start + self.shard] for start in range(0, len(paths), self.shard))

    def _path(self, shard: Sequence[Path]) -> Path:
        how = [self.tag, size_policy(self.most)] + (["mirrored"] if self.mirrored else [])
        key = json.dumps([*how, *(content_of(path) for path in shard)])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def content_of(path: Path) -> str:
    """A picture file by its bytes."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UnreadableFile(f"a picture at {path}", error.strerror or str(error), "Check the list.") from error
