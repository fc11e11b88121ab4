"""What to train a DiffV2IQA head on, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.rated import RatedSet
from ..errors import BadInput
from ..methods.diff_v2_iqa_eyes import EyeFiles
from ..methods.diff_v2_iqa_settings import DiffSettings
from ..nets.diff_v2 import DiffShape
from .genziqa_losses import LossWeights


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """One training; everything random follows from ``seed`` and the step.

    Attributes:
        data: Rated pictures, already cut to the part that may be trained on.
        out: The head's file.
        run: Folder of the state, the log and what is cached; a stopped or killed run goes on there.
        settings: How pictures are read.
        shape: Of both branches; published for ViT-B and ResNet50, else narrow, where left out.
        files: Weights of a ViT and a ResNet50.
        own_vit: Train a ViT of its own with the branches; it lies in the head's file.
        cache: ``features`` of every picture, computed once; or its ``restorations`` (for an own ViT, and where
            published maps of 22 MB a view are too many).
        shared: Folder of what several runs on these pictures share, contents and cache; the run's own when left out.
        steps: Of the optimiser, in all. The last step's averaged weights are kept: nothing is chosen by validation.
        minutes: Stop after this long, saved; ``None`` for no limit.
        batch: Pictures a step, over all processes (published: 4).
        rows: Views restored together.
        rate: Highest rate of AdamW; half a cosine down to a twentieth (published: Adam 1e-5).
        decay: AdamW's weight decay (published: 1e-5).
        clip: Largest norm of the gradient.
        drop: Share dropped in the places' heads.
        losses: Weights of squared error (published alone), ranking and correlation.
        average: Decay of the moving average of the weights, which is what is validated and written; 0 for none.
        flip: Mirror half of the pictures.
        share: Of the pictures, held back by content for validation.
        content: Keep pictures of like content on one side of the split, by the judge's features; otherwise only the
            set's own groups count.
        limit: At most this many pictures.
        validate_every: Steps between validations.
        validate_on: Held-back pictures to validate on.
        calibrated_on: Whose ratings these are, shown beside every score.
        precision: ``fp32``, ``bf16`` or ``fp16`` (with loss scaling) under autocast.
        save_minutes: Time between saved states.
        seed: Of everything.
    """

    data: RatedSet
    out: Path
    run: Path
    settings: DiffSettings = field(default_factory=DiffSettings)
    shape: DiffShape | None = None
    files: EyeFiles = field(default_factory=EyeFiles)
    own_vit: bool = False
    cache: Literal["features", "restorations"] = "features"
    shared: Path | None = None
    steps: int = 1000
    minutes: float | None = None
    batch: int = 16
    rows: int = 4
    rate: float = 1e-3
    decay: float = 1e-2
    clip: float = 1.0
    drop: float = 0.1
    losses: LossWeights = field(default_factory=LossWeights)
    average: float = 0.995
    flip: bool = True
    share: float = 0.1
    content: bool = True
    limit: int | None = None
    validate_every: int = 200
    validate_on: int = 1000
    calibrated_on: str = "your ratings"
    precision: str = "fp32"
    save_minutes: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors" or self.out.is_dir():
            raise BadInput("a .safetensors file for the head", str(self.out), "Name one.")
        names = ("steps", "batch", "rows", "rate", "clip", "validate_every", "validate_on")
        wrong = [f"{name} {getattr(self, name)}" for name in names if not getattr(self, name) > 0]
        if wrong or self.decay < 0 or self.batch < 2:
            raise BadInput("numbers above 0, a batch from 2", ", ".join(wrong) or f"batch {self.batch}", "Raise it.")
        if not (0.0 <= self.average < 1.0 and 0.0 <= self.drop < 1.0):
            raise BadInput("average and drop in [0, 1)", f"{self.average}, {self.drop}", "0 switches them off.")
        if self.precision not in ("fp32", "bf16", "fp16") or self.cache not in ("features", "restorations"):
            got = f"{self.precision!r}, {self.cache!r}"
            raise BadInput("fp32, bf16 or fp16, and a cache of features or restorations", got, "fp16 is for GPUs.")
        if self.limit is not None and self.limit < 4:
            raise BadInput("a limit of 4 pictures or more", str(self.limit), "Leave it out for all.")
        if self.own_vit and self.settings.vit is None:
            raise BadInput("sizes of a ViT for one of its own", "the judge's maps", "Set patches to vit.")

    def digest(self) -> str:
        """What a saved state must have in common with the request that goes on from it."""
        told: dict[str, Any] = asdict(self)
        for name in (
            "out",
            "run",
            "steps",
            "minutes",
            "save_minutes",
            "calibrated_on",
            "data",
            "rows",
            "files",
            "shared",
        ):
            del told[name]
        told["data"] = [self.data.name, [(str(image.path), image.mos) for image in self.data.images]]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
