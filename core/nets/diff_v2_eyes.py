"""What DiffV2IQA's branches read: frozen backbones' maps and vectors of a picture and of its three restorations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .diff_v2 import PLAN, joined
from .diff_v2_resnet import ResNet
from .diff_v2_vit import VisionTransformer
from .efficientnet_lite import MAP_CHANNELS, EfficientNetLite0

#: The judge's maps that stand for the ViT's four blocks: strides 8, 16, 16 and 32.
JUDGE_MAPS = (3, 4, 5, 6)
JUDGE_STRIDE = 32
#: The judge's maps whose means and log deviations stand for ResNet50's outputs: stem to stride 16.
JUDGE_VECTOR = (0, 1, 2, 3, 4)
JUDGE_FEATURES = 2 * sum(MAP_CHANNELS[place] for place in JUDGE_VECTOR)
_LOG_OFFSET = 1e-2


class DiffEyes(nn.Module):
    """Pictures and restorations → the two branches' inputs. Rows know nothing of each other.

    Args:
        patches: Gives the four maps: a ViT (published: ViT-B/8-224), or the judge's CNN.
        vectors: Gives the vector: a ResNet (published: ResNet50), or the judge's CNN; one forward where it is the same.
        blocks: Of the ViT, from 0 (published: 6 to 9).
    """

    def __init__(
        self,
        patches: VisionTransformer | EfficientNetLite0 | None,
        vectors: ResNet | EfficientNetLite0 | None,
        blocks: Sequence[int] = (6, 7, 8, 9),
    ) -> None:
        super().__init__()
        self.patches, self.vectors, self.blocks = patches, vectors, tuple(blocks)

    def forward(self, given: Tensor, restored: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Both branches' inputs.

        Args:
            given: Pictures [N, 3, S, S] in [0, 1].
            restored: Their d0, d1, d2 [N, 3, 3, S, S].

        Returns:
            Maps [N, 2 · Σ maps, grid, grid] by the block plan and vectors [N, 4, features], each ``None`` without its
            backbone.
        """
        maps, vectors = [], []
        plan = (range(len(self.blocks)), *PLAN)
        for picture, places in zip((given, *restored.unbind(1)), plan, strict=True):
            of_one, vector = self._look(picture, places)
            maps.append(of_one)
            vectors.append(vector)
        told = None if self.patches is None else joined(maps[0], maps[1:])
        return told, None if self.vectors is None else torch.stack(vectors, dim=1)

    def _look(self, picture: Tensor, places: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        both = self.patches if self.patches is self.vectors else None
        shared = both.features(picture, JUDGE_MAPS[-1] + 1) if isinstance(both, EfficientNetLite0) else None
        if self.vectors is None:
            vector = None
        elif isinstance(self.vectors, EfficientNetLite0):
            found = shared or self.vectors.features(picture, JUDGE_VECTOR[-1] + 1)
            vector = _statistics([found[place] for place in JUDGE_VECTOR])
        else:
            vector = self.vectors(picture)
        return self._maps(picture, places, shared), vector

    def _maps(self, picture: Tensor, places: Sequence[int], shared: list[Tensor] | None) -> list[Tensor]:
        if self.patches is None:
            return []
        if isinstance(self.patches, VisionTransformer):
            return list(self.patches.maps(picture, [self.blocks[place] for place in places]))
        layers = [JUDGE_MAPS[place] for place in places]
        found = shared or self.patches.features(picture, layers[-1] + 1)
        return [F.adaptive_avg_pool2d(found[layer], picture.shape[-1] // JUDGE_STRIDE) for layer in layers]


def _statistics(maps: Sequence[Tensor]) -> Tensor:
    """Means and log deviations of every channel, [N, 2 Σ C]."""
    parts = []
    for values in maps:
        flat = values.flatten(2).float()
        mean = flat.mean(dim=2)
        deviation = torch.linalg.vector_norm(flat - mean[..., None], dim=2) / flat.shape[2] ** 0.5
        parts += [mean, (deviation + _LOG_OFFSET).log()]
    return torch.cat(parts, dim=1)
