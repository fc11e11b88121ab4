"""What to train a GenzIQA head on, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.distortions import KINDS
from ..data.rated import RatedSet
from ..errors import BadInput
from ..methods.genziqa_head import CONTEXT, RANK
from ..methods.genziqa_settings import FAST, TRAINING_LEVELS, WORDS, GenzSettings, check_timesteps
from .genziqa_losses import LossWeights

#: Of what the steps follow from; raised when runs that were begun before must not go on. 2: sides in a drawn order. 3:
#: pictures for the final figures alone, and several processes' scores in one loss.
_FORMAT = 3


@dataclass(frozen=True, slots=True)
class GenzRequest:
    """One training; everything random follows from ``seed`` and the step.

    Attributes:
        data: Rated pictures, already cut to the part that may be trained on. Each set keeps a gain and an offset of
            its own; the head's are the first set's.
        out: The head's file.
        run: Folder of the state and the log; the same request goes on where a stopped or killed run ended.
        settings: How images are read. Its gain and offset count only with ``readout`` off.
        words: What follows the context: good, bad.
        context: Learned vectors.
        rank: Of the LoRA; 0 for none.
        padding_mask: Published: the text encoder's padding is masked.
        steps: Of the optimiser, in all.
        minutes: Stop after this long, saved; ``None`` for no limit.
        batch: Pictures a step, over all processes.
        rate: AdamW's, constant (published 1e-4).
        decay: AdamW's weight decay.
        clip: Largest norm of the gradient.
        losses: Weights of the terms.
        levels: Timesteps that training draws from; 0 to 99 as published when left out.
        one_level: All pictures of a step at one level, so that ranking and correlation compare like with like. The
            published code draws one for each picture.
        readout: Fit gain and offset to the ratings, before and after; off: raw score = MOS, as published.
        flip: Mirror half of the pictures.
        ladders: Pictures of a step that are shown twice, damaged less and damaged more, and must be told apart; these
            are drawn from a few of the pictures trained on, and need no ratings.
        ladder_weight: Of that loss.
        ladder_kinds: Of damage, out of ``KINDS`` of the distortions.
        share: Of each set's pictures, held back by content: half of them to choose the step by, half for the final
            figures, which no choice saw.
        content: Keep pictures of like content on one side of the split, by the judge's features; otherwise only the
            sets' own groups count.
        validate_every: Steps between validations.
        validate_on: Held-back pictures of the first set to validate on.
        validate_levels: Timesteps of these validations; the final one uses the settings' own.
        calibrate_on: Pictures behind gain and offset.
        limit: At most this many pictures of each set.
        calibrated_on: Whose ratings these are, shown beside every score; ``None``: scores only rank, without a scale.
        save_minutes: Time between saved states.
        seed: Of everything.
        precision: ``fp32``, or ``bf16`` under autocast.
        half: Round the head to fp16 before it is measured, and write it so: half the file.
    """

    data: tuple[RatedSet, ...]
    out: Path
    run: Path
    settings: GenzSettings = field(default_factory=GenzSettings)
    words: tuple[str, str] = WORDS
    context: int = CONTEXT
    rank: int = RANK
    padding_mask: bool = False
    steps: int = 1000
    minutes: float | None = None
    batch: int = 16
    rate: float = 1e-4
    decay: float = 1e-2
    clip: float = 1.0
    losses: LossWeights = field(default_factory=LossWeights)
    levels: tuple[int, ...] | None = None
    one_level: bool = False
    readout: bool = True
    flip: bool = True
    ladders: int = 0
    ladder_weight: float = 1.0
    ladder_kinds: tuple[str, ...] = ("gaussian_blur", "white_noise", "jpeg")
    share: float = 0.2
    content: bool = True
    validate_every: int = 200
    validate_on: int = 200
    validate_levels: tuple[int, ...] = FAST
    calibrate_on: int = 128
    limit: int | None = None
    calibrated_on: str | None = "your ratings"
    save_minutes: float = 3.0
    seed: int = 0
    precision: str = "fp32"
    half: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise BadInput("at least one set of rated pictures", "none", "Name one with --data.")
        if self.out.suffix != ".safetensors" or self.out.is_dir():
            raise BadInput("a .safetensors file for the head", str(self.out), "Name one.")
        positive = {
            name: getattr(self, name)
            for name in ("steps", "batch", "rate", "clip", "validate_every", "validate_on", "calibrate_on")
        }
        wrong = [f"{name} {value}" for name, value in positive.items() if not value > 0]
        if wrong or self.decay < 0 or self.batch < 2:
            raise BadInput(
                "numbers above 0, and a batch of 2 or more", ", ".join(wrong) or f"{self.batch}", "Raise it."
            )
        if self.precision not in ("fp32", "bf16"):
            raise BadInput("precision fp32 or bf16", repr(self.precision), "bf16 needs a device that has it.")
        if self.ladders < 0 or not 0.0 < self.ladder_weight < float("inf"):
            raise BadInput("ladders from 0 and a finite weight", f"{self.ladders}, {self.ladder_weight}", "Raise it.")
        if not self.ladder_kinds or set(self.ladder_kinds) - set(KINDS):
            raise BadInput(f"kinds of damage out of {', '.join(KINDS)}", f"{self.ladder_kinds}", "Use these names.")
        check_timesteps(self.validate_levels)
        if self.levels is not None:
            check_timesteps(self.levels)
        if self.limit is not None and self.limit < 4:
            raise BadInput("a limit of 4 pictures or more", str(self.limit), "Leave it out for all.")

    @property
    def training_levels(self) -> tuple[int, ...]:
        """The timesteps to draw from."""
        return self.levels if self.levels is not None else tuple(range(TRAINING_LEVELS))

    def digest(self) -> str:
        """What a saved state must have in common with the request that goes on from it."""
        told: dict[str, Any] = asdict(self)
        for name in ("out", "run", "steps", "minutes", "save_minutes", "calibrated_on", "data", "half"):
            del told[name]
        told["format"] = _FORMAT
        told["data"] = [[found.name, [(str(i.path), i.mos) for i in found.images]] for found in self.data]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
