"""What a fit costs, told before it starts: network calls, counted, and time after the first pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadInput, UnreadableFile
from ..images import picture_size
from ..methods.hyperfeature_views import view_count

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..backbone.contracts import Family
    from ..methods.hyperfeature_options import HyperfeatureOptions
    from ..methods.hyperfeatures import Hyperfeatures


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls of the networks, in views of one picture each.

    Attributes:
        pictures: Pictures.
        views: Crops and whole views of all of them.
        levels: Noise levels.
        denoiser: Denoiser forwards.
        terms: Terms of the guidance that decode.
        decoder: Decoder forwards, and as many backwards.
        psi: Forwards and backwards of psi.
        features: Features of a picture.
        through_denoiser: Whether psi is the denoiser itself.
    """

    pictures: int
    views: int
    levels: int
    denoiser: int
    terms: int
    decoder: int
    psi: int
    features: int
    through_denoiser: bool = False

    def to_text(self) -> str:
        """In words."""
        text = (
            f"{self.pictures} pictures, {self.views} views: {self.views} VAE encodes, "
            f"{self.denoiser} denoiser forwards ({self.levels} levels)"
        )
        if self.decoder:
            text += f", {self.decoder} decoder forwards and backwards ({self.terms} terms)"
        if self.psi:
            net = "the denoiser for psi" if self.through_denoiser else "psi"
            text += f", {self.psi} forwards and backwards of {net}"
        return f"{text}; {self.features} features a picture, {4e-6 * self.features * self.pictures:.0f} MB in the cache"


def cost_of(features: Hyperfeatures, sizes: Iterable[tuple[int, int]]) -> Cost:
    """Of pictures of these heights and widths. The last level's forward guides nothing.

    A picture that has no views, because it is longer than 16:1, costs nothing: the fit leaves it out, with the reason.
    """
    options, family = features.options, features.backbone.family
    counts = [_views(height, width, family, options) for height, width in sizes]
    views, levels = sum(counts), len(features.sigmas)
    guidance, guided = options.guidance, options.kind == "guided_path"
    pixels = guidance.measurement == "pixels"
    measuring = guided and guidance.zeta1 > 0.0 and pixels
    psi = features.psi if guided and guidance.zeta2 > 0.0 else None
    perceiving = psi is not None
    terms = int(measuring) + int(psi is not None and psi.space == "pixels")
    inversion = levels if guided and guidance.start == "inversion" else 0
    return Cost(
        pictures=len(counts),
        views=views,
        levels=levels,
        denoiser=views * (levels + inversion),
        terms=terms,
        decoder=views * terms * (levels - 1),
        psi=views * int(perceiving) * (levels - 1),
        features=features.layout.size,
        through_denoiser=psi is not None and psi.through_denoiser,
    )


def _views(height: int, width: int, family: Family, options: HyperfeatureOptions) -> int:
    try:
        return view_count(height, width, family, options)
    except BadInput:
        return 0


def sizes_of(sources: Iterable[Path | Tensor]) -> list[tuple[int, int]]:
    """Height and width of each picture, by its file's header; what cannot be read counts as one small picture."""
    from pathlib import Path

    found = []
    for source in sources:
        if not isinstance(source, Path):
            found.append((int(source.shape[-2]), int(source.shape[-1])))
            continue
        try:
            width, height = picture_size(source)
        except UnreadableFile:
            width = height = 1
        found.append((height, width))
    return found


def remaining(seconds: float, done: int, total: int) -> str:
    """The time that is left, in words, from the time that some of the work took."""
    left = seconds * (total - done) / max(1, done)
    return f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min" if left < 5400 else f"{left / 3600:.1f} h"
