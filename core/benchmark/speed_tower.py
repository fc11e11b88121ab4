"""The built-in judge beside the image tower of a ViT-B/32, the size that CLIP-based scores run, on this machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..methods.judge import Judge
from .speed_row import SpeedRow, time_row
from .timing import Job, interleaved

_SIDE = 512
_IMAGES = 4


class Tower(nn.Module):
    """ViT-B/32 at 224 px, random weights: time does not depend on what weights hold.

    12 layers of width 768 with 12 heads and 3072 hidden units on 49 patches and a class token; 87 million parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 32, 32, bias=False)
        self.token = nn.Parameter(torch.zeros(1, 1, 768))
        self.places = nn.Parameter(torch.zeros(1, 50, 768))
        self.first = nn.LayerNorm(768)
        layer = nn.TransformerEncoderLayer(768, 12, 3072, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        self.last = nn.LayerNorm(768)
        self.out = nn.Linear(768, 512, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, 224, 224] → embeddings [N, 512]."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.places
        return self.out(self.last(self.layers(self.first(tokens))[:, 0]))


class TowerScorer:
    """What such a score does with pictures: resize, normalise, embed, compare with two texts."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.tower = Tower().eval().requires_grad_(False)
            self.texts = F.normalize(torch.randn(2, 512), dim=1)

    @torch.inference_mode()
    def score(self, images: list[Tensor]) -> list[float]:
        """Pictures [3, H, W] → one number each."""
        small = [F.interpolate(image[None], size=(224, 224), mode="bicubic", antialias=True) for image in images]
        embedded = F.normalize(self.tower((torch.cat(small).clamp(0, 1) - 0.45) / 0.27), dim=1)
        return (embedded @ self.texts.T).softmax(1)[:, 0].tolist()


def tower_rows(repeats: int) -> list[SpeedRow]:
    """Two rows: the judge over the tower, and its ``fast`` policy over looking at all views."""
    judge, fast, tower = Judge.load(), Judge.load(policy="fast"), TowerScorer()
    images = list(torch.rand(_IMAGES, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)))
    jobs: dict[str, Job] = {
        "judge": lambda: judge.score(images),
        "fast": lambda: fast.score(images),
        "tower": lambda: tower.score(images),
    }
    timings = interleaved(jobs, repeats)
    rate = {name: f"{_IMAGES / timings.seconds(name):.1f}" for name in jobs}
    size = f"{_IMAGES} images of {_SIDE}×{_SIDE} px, {repeats} interleaved runs, {torch.get_num_threads()} threads"
    versus = (
        f"{rate['judge']} against {rate['tower']} images a second; {size}; the tower sees 224 px and random weights"
    )
    fewer = f"{rate['fast']} against {rate['judge']} images a second; {size}"
    return [
        time_row(timings, "judge", "tower", name="judge: over a ViT-B/32 tower", limit=1.0, detail=versus),
        time_row(timings, "fast", "judge", name="judge: fast policy over all views", limit=0.8, detail=fewer),
    ]
