"""What the trainings of a head on one rated set have in common: pictures, steps, losses, validation, saving."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..data.rated import RatedSet
from ..errors import BadInput
from .genziqa_losses import LossWeights

#: What a head's file keeps of its training.
_KEPT = ("steps", "batch", "rate", "decay", "drop", "average", "flip", "share", "limit", "seed", "precision")


@dataclass(frozen=True, slots=True)
class RatedRequest:
    """One training.

    Attributes:
        data: Rated pictures, none of a test part.
        out: The head's .safetensors.
        run: Folder of the state, the log and what is computed once; a run that was stopped goes on there.
        steps: Of the optimiser, in all.
        minutes: Stop after this long, saved; ``None`` for no limit.
        batch: Pictures a step, over all processes.
        rows: Pictures in one forward of what is frozen.
        rate: Highest rate of AdamW; half a cosine down to a twentieth.
        decay: AdamW's weight decay.
        clip: Largest norm of the gradient.
        drop: Share that dropout drops.
        losses: Weights of squared error, ranking and correlation.
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
    steps: int = 1000
    minutes: float | None = None
    batch: int = 16
    rows: int = 4
    rate: float = 1e-3
    decay: float = 1e-2
    clip: float = 1.0
    drop: float = 0.0
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

    #: What a run may go on with changed. The number of steps is not among it: the rate falls over all of them.
    ASIDE: ClassVar[tuple[str, ...]] = ("out", "run", "minutes", "save_minutes", "calibrated_on", "data", "rows")

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors" or self.out.is_dir():
            raise BadInput("a .safetensors file for the head", str(self.out), "Name one.")
        names = ("steps", "batch", "rows", "rate", "clip", "validate_every", "validate_on")
        wrong = [f"{name} {getattr(self, name)}" for name in names if not getattr(self, name) > 0]
        if wrong or self.decay < 0 or self.batch < 2:
            raise BadInput("numbers above 0, a batch from 2", ", ".join(wrong) or f"batch {self.batch}", "Raise it.")
        if not (0.0 <= self.average < 1.0 and 0.0 <= self.drop < 1.0):
            raise BadInput("average and drop in [0, 1)", f"{self.average}, {self.drop}", "0 switches them off.")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise BadInput("precision fp32, bf16 or fp16", repr(self.precision), "fp16 is for GPUs.")
        if self.limit is not None and self.limit < 4:
            raise BadInput("a limit of 4 pictures or more", str(self.limit), "Leave it out for all.")

    def digest(self) -> str:
        """What a saved state must have in common with the request that goes on from it."""
        told: dict[str, Any] = asdict(self)
        for name in self.ASIDE:
            del told[name]
        told["data"] = [self.data.name, [(str(image.path), image.mos) for image in self.data.images]]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def told(self) -> dict[str, Any]:
        """What the head's file says of its training."""
        return {name: getattr(self, name) for name in _KEPT} | {"losses": asdict(self.losses)}
