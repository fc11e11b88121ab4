"""What to train a pixel-space restorer on, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.distortions import KINDS
from ..errors import BadInput
from ..nets.restorer import NARROW, RestorerShape
from ..restoration.schedule import inference_levels

#: Raised when runs that were begun before must not go on.
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RestorerRequest:
    """One training; everything random follows from ``seed`` and the step.

    Attributes:
        pictures: Folder of clean pictures, with or without a manifest that says which are held back.
        every: Of those to train on, the first of every so many, in the manifest's order: 3 takes a third.
        out: The restorer's file.
        run: Folder of the state and the log; the same request goes on where a stopped or killed run ended.
        shape: Of the network; the crops have the shape's native side.
        steps: Of the optimiser, in all.
        minutes: Stop after this long, saved; ``None`` for no limit.
        batch: Pairs a step, over all processes (published: 256).
        rate: Adam's highest (published: 1e-5, constant).
        rise: Steps over which the rate rises.
        falls: Half a cosine down to a twentieth at the last step; otherwise constant, as published.
        loss: ``l1`` or ``l2`` on what the network predicts (published: eps, l1 [inferred]).
        average: Decay of the weights' moving average, which is what is written.
        clip: Largest norm of the gradient.
        kinds: Of damage, out of those that may be trained on.
        untouched: Share of pairs without damage.
        pure: Share of pairs at the first level to restore with, where all must come from the damaged picture; the
            others are drawn over all levels, as published.
        highest_noise: Of the others: 1 for all levels; a restorer of four steps meets none between .35 and 1.
        own: Share of these others whose noisy picture is of what the network itself makes of the damaged one, as it
            will be when it restores; 0 as published: always of the clean picture.
        inference: Steps to restore with, which the file remembers.
        eta: 0 for DDIM, 1 for ancestral sampling as published; likewise.
        validate_every: Steps between validations.
        validate_on: Held-back pairs.
        save_minutes: Time between saved states.
        most: Pictures are made this small along the shorter side at most, which bounds memory.
        seed: Of everything.
        precision: ``fp32``, or under autocast ``bf16`` or ``fp16``.
    """

    pictures: Path
    out: Path
    run: Path
    shape: RestorerShape = NARROW
    steps: int = 10_000
    minutes: float | None = None
    batch: int = 32
    rate: float = 1e-3
    rise: int = 100
    falls: bool = True
    loss: Literal["l1", "l2"] = "l1"
    average: float = 0.999
    clip: float = 1.0
    kinds: tuple[str, ...] = KINDS
    untouched: float = 0.05
    pure: float = 0.0
    highest_noise: float = 1.0
    own: float = 0.0
    inference: int = 50
    eta: float = 1.0
    validate_every: int = 500
    validate_on: int = 110
    save_minutes: float = 2.0
    most: int = 384
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    every: int = 1

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors" or self.out.is_dir():
            raise BadInput("a .safetensors file for the restorer", str(self.out), "Name one.")
        names = ("steps", "batch", "rate", "clip", "validate_every", "validate_on", "most", "every")
        wrong = [f"{name} {getattr(self, name)}" for name in names if not getattr(self, name) > 0]
        if wrong:
            raise BadInput("numbers above 0", ", ".join(wrong), "Raise them.")
        shares = (self.average, self.untouched, self.pure)
        if not all(0.0 <= share < 1.0 for share in shares):
            raise BadInput("average, untouched and pure in [0, 1)", str(shares), "Lower them.")
        if not (0.0 < self.highest_noise <= 1.0 and 0.0 <= self.own <= 1.0):
            got = f"{self.highest_noise}, {self.own}"
            raise BadInput(
                "a highest noise above 0, a share of its own from 0, both up to 1", got, "Published: 1 and 0."
            )
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise BadInput(f"kinds out of {', '.join(KINDS)}", ", ".join(unknown) or "none", "Use these names.")
        if self.loss not in ("l1", "l2") or self.precision not in ("fp32", "bf16", "fp16"):
            got = f"{self.loss}, {self.precision}"
            raise BadInput("loss l1 or l2, precision fp32, bf16 or fp16", got, "Use these names.")
        inference_levels(self.inference)

    def digest(self) -> str:
        """What a saved state must have in common with the request that goes on from it."""
        told: dict[str, Any] = asdict(self)
        # A saved state knows its pictures by name, whatever chose them.
        aside = ("pictures", "every", "out", "run", "minutes", "save_minutes", "inference", "eta", "precision")
        for name in aside:
            del told[name]
        if not self.falls:
            del told["steps"]
        told["format"] = _FORMAT
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
