"""What to train a DiffV2IQA head on, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from ..errors import BadInput
from ..methods.diff_v2_iqa_eyes import EyeFiles
from ..methods.diff_v2_iqa_settings import DiffSettings
from ..nets.diff_v2 import DiffShape
from .rated_request import RatedRequest


@dataclass(frozen=True, slots=True)
class DiffRequest(RatedRequest):
    """One training; everything random follows from ``seed`` and the step.

    Published: Adam 1e-5, decay 1e-5, batches of 4, squared error alone. The last step's averaged weights are kept:
    nothing is chosen by validation. Beside :class:`~.rated_request.RatedRequest`:

    Attributes:
        settings: How pictures are read.
        shape: Of both branches; published for ViT-B and ResNet50, else narrow, where left out.
        files: Weights of a ViT and a ResNet50.
        own_vit: Train a ViT of its own with the branches; it lies in the head's file.
        cache: ``features`` of every picture, computed once; or its ``restorations`` (for an own ViT, and where
            published maps of 22 MB a view are too many).
        shared: Folder of what several runs on these pictures share, contents and cache; the run's own when left out.
        drop: Share dropped in the places' heads.
    """

    settings: DiffSettings = field(default_factory=DiffSettings)
    shape: DiffShape | None = None
    files: EyeFiles = field(default_factory=EyeFiles)
    own_vit: bool = False
    cache: Literal["features", "restorations"] = "features"
    shared: Path | None = None
    drop: float = 0.1

    ASIDE: ClassVar[tuple[str, ...]] = (*RatedRequest.ASIDE, "files", "shared")

    def __post_init__(self) -> None:
        RatedRequest.__post_init__(self)
        if self.cache not in ("features", "restorations"):
            raise BadInput("a cache of features or restorations", repr(self.cache), "The default is features.")
        if self.own_vit and self.settings.vit is None:
            raise BadInput("sizes of a ViT for one of its own", "the judge's maps", "Set patches to vit.")
