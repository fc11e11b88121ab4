"""How a GenzIQA head reads an image: what it was trained with, and what a user may choose at scoring time.

After De, Mitra and Soundararajan, 2024 (arXiv 2406.04654), reimplemented, not by its authors. "Published" below is what
their code does; everything else is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..backbone.schedule import STEPS
from ..errors import BadInput
from .native_size import native_policy, native_shape
from .prompt_scores import NOISE_WEIGHT, TEMPERATURE

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Family
    from .prompt_reader import Encode

#: The eight levels that the published code tests with, and two of them.
PUBLISHED = (9, 21, 33, 45, 57, 69, 81, 93)
FAST = (33, 69)
#: The published words after the context: good, bad.
WORDS = ("Good Photo.", "Bad Photo.")
#: Levels that training draws from.
TRAINING_LEVELS = 100

ValueRange = Literal["vae", "clip"]
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class GenzSettings:
    """What a head was trained with; part of its file.

    Attributes:
        timesteps: DDPM timesteps that the score is averaged over.
        seed: The noise bank: the level of timestep t uses seed + t, one draw for all images of a size.
        temperature: Of the soft maximum over queries.
        bias_weight: Weight of the noise-error bias, error with the good prompt less error with the bad one, in units
            of root mean square; the published plain norm at 512² is 128. 0 leaves the bias out, and forwards end early.
        contrast: False, as published: the mean of both prompts' attention. True: good less bad.
        value_range: What the VAE is given: ``vae`` its own [-1, 1], or ``clip`` CLIP's mean and deviation (published).
        square: Published: resized to a square, whatever the aspect. False keeps the aspect at the same area.
        side: Root of the area in pixels; the family's native size when left out.
        gain: Score units per unit of the raw signal.
        offset: Score of raw signal 0.
    """

    timesteps: tuple[int, ...] = PUBLISHED
    seed: int = 0
    temperature: float = TEMPERATURE
    bias_weight: float = NOISE_WEIGHT
    contrast: bool = False
    value_range: ValueRange = "vae"
    square: bool = False
    side: int | None = None
    gain: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        check_timesteps(self.timesteps)
        if not all(math.isfinite(value) for value in (self.bias_weight, self.gain, self.offset)) or self.gain == 0.0:
            got = f"bias {self.bias_weight}, gain {self.gain}, offset {self.offset}"
            raise BadInput("finite weights and a gain that is not 0", got, "The file may be damaged.")
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise BadInput("a temperature > 0", str(self.temperature), f"The published one is {TEMPERATURE}.")
        if self.value_range not in ("vae", "clip"):
            raise BadInput("the value range vae or clip", repr(self.value_range), "The published one is clip.")
        if self.side is not None and not 64 <= self.side <= 4096:
            raise BadInput("a side from 64 to 4096 pixels", str(self.side), "Leave it out for the model's own size.")

    def shape(self, height: int, width: int, family: Family) -> tuple[int, int]:
        """Height and width in pixels at which an image is scored.

        Raises:
            BadInput: the image is longer than 16:1.
        """
        kept = native_shape(height, width, family, self.side)
        return native_shape(1, 1, family, self.side) if self.square else kept

    def size_policy(self, family: Family) -> str:
        """The same in words."""
        side = self.side or family.native_size
        if self.square:
            return f"the whole image resized (bicubic, antialiased) to {side}×{side} px, aspect not kept"
        return native_policy(family, self.side)

    def encode(self, backbone: Backbone) -> Encode:
        """How pixels become latents: the posterior's mode."""
        return clip_encode(backbone) if self.value_range == "clip" else backbone.encode

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "timesteps": list(self.timesteps)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> GenzSettings:
        """The inverse of :meth:`to_dict`; other keys are left alone."""
        known = {name: value for name, value in told.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "timesteps": tuple(known["timesteps"])})


@dataclass(frozen=True, slots=True)
class GenzIQAOptions:
    """What a user may choose when scoring.

    Attributes:
        timesteps: Other levels than the head's: fewer are faster. The head's when left out.
        bias: Whether the noise-error bias counts. A head that was trained with it only ranks without it, and forwards
            then end at the last cross-attention.
        most_rows: Rows in one forward at most, whatever memory would hold: an interrupt waits for a forward to end.
        override: Use a head of another checkpoint of the family all the same; its scores then only rank.
    """

    timesteps: tuple[int, ...] | None = None
    bias: bool = True
    most_rows: int = 32
    override: bool = False

    def __post_init__(self) -> None:
        if self.timesteps is not None:
            check_timesteps(self.timesteps)
        if self.most_rows < 1:
            raise BadInput("at least 1 row in a forward", str(self.most_rows), "The default is 32.")


def check_timesteps(steps: Sequence[int]) -> None:
    """Different integers of the schedule, or one clear error.

    Raises:
        BadInput: anything else.
    """
    whole = all(isinstance(step, int) and not isinstance(step, bool) for step in steps)
    if not steps or not whole or len(set(steps)) < len(steps) or not all(0 <= step < STEPS for step in steps):
        raise BadInput(f"different timesteps from 0 to {STEPS - 1}", str(steps), f"Published: {PUBLISHED}.")


def clip_encode(backbone: Backbone) -> Encode:
    """Pixels [N, 3, H, W] in [0, 1], normalised by CLIP's mean and deviation → latents."""

    def encode(pixels: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(v).to(pixels).view(1, 3, 1, 1) for v in (_CLIP_MEAN, _CLIP_STD))
        return backbone.encode((pixels - mean) / deviation, value_range=(0.0, 1.0))

    return encode
