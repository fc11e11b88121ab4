"""What a user may set on zero_shot, checked once, and how its two signals become one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from ..backbone.schedule import STEPS
from ..errors import BadInput
from .prompt_scores import NOISE_WEIGHT, TEMPERATURE

#: (good, bad)
Pair: TypeAlias = "tuple[str, str]"

#: GenzIQA's words without its learned context, and a pair of our own that names damage.
DEFAULT_PAIRS: tuple[Pair, ...] = (
    ("Good photo.", "Bad photo."),
    ("a sharp, clean, detailed photo", "a blurry, noisy, damaged photo"),
)


@dataclass(frozen=True, slots=True)
class ZeroShotOptions:
    """Settings of zero_shot.

    Attributes:
        timesteps: DDPM timesteps of the noise levels; each model is asked for the sigma of equal signal-to-noise ratio.
            Three of the eight that GenzIQA tests with.
        seed: First seed of the noise; the level of timestep t uses seed + t, so that adding levels changes no other.
        noise_weight: Weight of the noise term, in units of root mean square; 0 leaves it out, and forwards then end at
            the last tap. The default is GenzIQA's balance.
        attention_weight: Weight of the attention term, in logits; 0 leaves it out.
        temperature: Of the soft maximum over queries.
        taps: Attention taps to read; all of the model's when left out.
        most_rows: Rows in one forward at most, whatever memory would hold: an interrupt waits for a forward to end.
        side: Root of the area in pixels that images are scored at; the family's native size when left out. Less is
            faster, and further from what the model was trained on.
        centre: Fixed centre for blending. 0 needs no measuring: swapping good and bad negates every value.
        spread: Fixed spread for blending. 1 is a convention and not measured on anybody's model: measure the values
            of pictures of your own and give their standard deviation.
    """

    timesteps: tuple[int, ...] = (21, 57, 93)
    seed: int = 0
    noise_weight: float = NOISE_WEIGHT
    attention_weight: float = 1.0
    temperature: float = TEMPERATURE
    taps: tuple[str, ...] | None = None
    most_rows: int = 32
    side: int | None = None
    centre: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        steps = self.timesteps
        if not steps or len(set(steps)) < len(steps) or not all(0 <= t < STEPS for t in steps):
            raise BadInput(f"different timesteps from 0 to {STEPS - 1}", str(steps), "The default is (21, 57, 93).")
        weights = (self.noise_weight, self.attention_weight)
        if not all(math.isfinite(weight) and weight >= 0.0 for weight in weights) or sum(weights) == 0.0:
            raise BadInput("finite weights ≥ 0, not both 0", str(weights), f"The defaults are {NOISE_WEIGHT:g} and 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise BadInput("a temperature > 0", str(self.temperature), f"The default is {TEMPERATURE}.")
        if self.most_rows < 1:
            raise BadInput("at least 1 row in a forward", str(self.most_rows), "The default is 32.")
        if self.side is not None and not 64 <= self.side <= 4096:
            raise BadInput("a side from 64 to 4096 pixels", str(self.side), "Leave it out for the model's own size.")
        if not (math.isfinite(self.centre) and math.isfinite(self.spread) and self.spread > 0.0):
            raise BadInput("a finite centre and a spread > 0", f"{self.centre}, {self.spread}", "Defaults: 0 and 1.")

    def seeds(self) -> list[int]:
        """One noise seed per level."""
        return [self.seed + t for t in self.timesteps]

    def to_dict(self) -> dict[str, Any]:
        """All that changes a value, as plain types."""
        values = asdict(self)
        del values["most_rows"], values["taps"], values["centre"], values["spread"]
        measured = self.spread != 1.0 or self.centre != 0.0
        source = "given by the user" if measured else "centre by symmetry, spread a convention that was not measured"
        return {**values, "timesteps": list(self.timesteps), "centre_and_spread": source}


def check_pairs(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs, or one clear error.

    Raises:
        BadInput: no pairs, something that is no pair of texts, or two texts alike.
    """
    if isinstance(pairs, str) or not pairs:
        raise BadInput("at least one pair of prompts (good, bad)", repr(pairs), "Leave pairs out for the defaults.")
    for pair in pairs:
        texts = [text for text in pair if isinstance(text, str)] if isinstance(pair, (tuple, list)) else []
        if len(texts) != 2 or len(pair) != 2:
            raise BadInput("pairs of two texts (good, bad)", repr(pair), "Write ('a sharp photo', 'a blurry photo').")
        if texts[0].strip() == texts[1].strip():
            raise BadInput("two different texts in a pair", repr(pair), "Equal texts would score 0 for every image.")
    return tuple((good, bad) for good, bad in pairs)


def combine(
    options: ZeroShotOptions, noise: Sequence[float], attention: Sequence[float]
) -> tuple[float, dict[str, Any]]:
    """The signals of each pair → the score and its parts; pairs count alike."""
    pairs = [options.noise_weight * n + options.attention_weight * a for n, a in zip(noise, attention, strict=True)]
    parts: dict[str, Any] = {"pairs": pairs}
    if options.noise_weight:
        parts["noise"] = math.fsum(noise) / len(noise)
    if options.attention_weight:
        parts["attention"] = math.fsum(attention) / len(attention)
    return math.fsum(pairs) / len(pairs), parts
