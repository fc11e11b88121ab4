"""What an lgdm score costs beside the network calls that it cannot do without, on ComfyUI's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .speed_guidance import MOST_REPEATS, BareGuidance
from .speed_row import SpeedRow, scorer_rows

if TYPE_CHECKING:
    from ..heads.head import Head
    from ..methods.hyperfeatures import Hyperfeatures

_LEVELS = (80, 40)
CALLS = (
    "1 VAE encode, 2 denoiser forwards (the last one whole), at the first level 2 VAE decoder forwards and 2 "
    "backwards, 1 forward and 1 backward of the judge's psi, and that psi once on the picture; text embedded once in "
    "both"
)


def lgdm_rows(model: Any, clip: Any, vae: Any, *, repeats: int, side: int) -> list[SpeedRow]:
    """Two rows: over its bare calls, and linear in images.

    Args:
        model, clip, vae: ComfyUI's.
        repeats: Interleaved runs behind each median.
        side: Of the images, in pixels.
    """
    from ..hosts.comfyui.backbone import ComfyBackbone
    from ..methods.lgdm import Lgdm
    from ..perceptual.judge import JudgePsi

    repeats = min(repeats, MOST_REPEATS)
    backbone, psi = ComfyBackbone(model, clip, vae), JudgePsi.load()
    scorer = Lgdm(backbone, random_head(features_of(backbone, psi, side)), psi)
    images = list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    bare = BareLgdm(model, vae, psi, backbone.embed([""]).tokens)
    return scorer_rows(scorer, bare.score, images, repeats=repeats, device=model.load_device, calls=CALLS)


def features_of(backbone: Any, psi: Any, side: int) -> Hyperfeatures:
    """What is timed: two levels, both terms, the whole view."""
    from ..guidance.options import GuidanceOptions
    from ..methods.hyperfeature_options import HyperfeatureOptions
    from ..methods.hyperfeatures import Hyperfeatures

    guidance = GuidanceOptions(timesteps=_LEVELS)
    return Hyperfeatures(backbone, HyperfeatureOptions(guidance=guidance, views=("whole",), side=side), psi)


def random_head(features: Hyperfeatures) -> Head:
    """A head of random weights: to time, not to look at."""
    from ..fitting.pictures import Pictures
    from ..fitting.rated import meta_of
    from ..heads.fit import fit_head

    draw = torch.Generator().manual_seed(0)
    rows, ratings = torch.randn(12, features.layout.size, generator=draw), torch.linspace(0.0, 100.0, 12)
    nobody = Pictures("random numbers", (rows[:1],), ("none",))
    return fit_head(rows, ratings, range(12), features.layout, meta_of(features, nobody, "random numbers")).head


class BareLgdm(BareGuidance):
    """The network calls that :data:`CALLS` names, and no more."""

    def __init__(self, model: Any, vae: Any, psi: Any, tokens: Tensor) -> None:
        super().__init__(model, vae, psi, tokens)
        self._vae = vae

    def score(self, image: Tensor) -> float:
        """All calls of one image; reads one number back so that queued work is done."""
        with torch.no_grad():
            latent = self._vae.encode(image[None].movedim(1, -1)).to(self._device)
            clean = self._network.process_latent_in(latent)
            reference = self._psi.features(image[None])
        first, last = self._estimates(clean)
        raw = self._network.process_latent_out(first)
        total = self._slope(raw, lambda pixels: (pixels - image).square().sum())
        total += self._slope(raw, lambda pixels: self._psi.distance(self._psi.features(pixels), reference).sum())
        return total + float(last.mean())
