"""The values that travel between rooms: what a score is, what it means, and why one may be missing.

Standard library only. Everything here is frozen, compares by value and turns into JSON and back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .errors import BadInput

Direction = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class ScoreSpec:
    """What a scorer's numbers mean.

    Attributes:
        name: The scorer's registry name, such as ``judge``.
        direction: Which end is good.
        scale: Lowest and highest possible value; ``None`` for an open scale.
        calibrated_on: What people's ratings the scale was fitted to ("photographs", "your ratings"); ``None`` means
            that values rank images but mean nothing alone, so an absolute threshold is refused.
        centre: Fixed centre for blending; never taken from the batch.
        spread: Fixed spread for blending, > 0.
        needs: What the scorer must be given: of ``image``, ``prompt``, ``model``, ``clip``, ``vae``, ``head``.
        size_policy: How an image becomes network input, in words.
        blind_to: What the score does not see, shown on the node.
        backbone: Fingerprint of the diffusion model, when one is used.
        settings: Everything else that changes a value: prompts, sigmas, seeds, head file.
    """

    name: str
    direction: Direction = "higher"
    scale: tuple[float, float] | None = None
    calibrated_on: str | None = None
    centre: float = 0.0
    spread: float = 1.0
    needs: tuple[str, ...] = ("image",)
    size_policy: str = ""
    blind_to: str = ""
    backbone: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise BadInput("direction 'higher' or 'lower'", repr(self.direction), "Fix the scorer's spec.")
        if not (math.isfinite(self.spread) and self.spread > 0 and math.isfinite(self.centre)):
            raise BadInput(
                "a finite centre and a spread > 0", f"{self.centre}, {self.spread}", "Fix the scorer's spec."
            )

    @property
    def calibrated(self) -> bool:
        """Whether an absolute threshold has a meaning."""
        return self.calibrated_on is not None

    def goodness(self, value: float) -> float:
        """A value turned so that higher is better, in units of the spec's own spread (for ranking and blending)."""
        sign = 1.0 if self.direction == "higher" else -1.0
        return sign * (value - self.centre) / self.spread

    @property
    def digest(self) -> str:
        """A short hash of everything above, also after JSON and back: scores with one digest can be compared."""
        text = json.dumps(self.to_dict(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "settings": dict(self.settings), "needs": list(self.needs)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreSpec:
        """The inverse of :meth:`to_dict`."""
        scale = data.get("scale")
        return cls(**{**data, "scale": tuple(scale) if scale else None, "needs": tuple(data.get("needs", ("image",)))})


@dataclass(frozen=True, slots=True)
class Score:
    """One image's score, or the reason why it has none.

    Attributes:
        value: The number; ``None`` exactly when ``reason`` is set. NaN and infinity never travel as a number.
        index: The image's place in the batch that was first scored; selection keeps it.
        reason: Why there is no value, in words for the user.
        seed: The seed that the image was sampled with, when known.
        attributes: Parts of the score (per view, per prompt, per level), uncertainty, warnings, the image's path.
    """

    value: float | None
    index: int
    reason: str | None = None
    seed: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise BadInput("a value or a reason", f"value {self.value!r}, reason {self.reason!r}", "Give exactly one.")
        if self.value is not None and not math.isfinite(self.value):
            raise BadInput("a finite score", str(self.value), "Use Score.of, which turns NaN into a reason.")

    @classmethod
    def of(cls, value: float, index: int, **rest: Any) -> Score:
        """A score from a raw number; NaN and infinity become a reason."""
        value = float(value)
        if math.isfinite(value):
            return cls(value, index, **rest)
        return cls(None, index, reason=f"the scorer returned {value}", **rest)

    @property
    def ok(self) -> bool:
        """Whether there is a number."""
        return self.value is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "value": self.value,
            "index": self.index,
            "reason": self.reason,
            "seed": self.seed,
            "attributes": dict(self.attributes),
        }


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """The scores of a batch, in the order of its images, with the one spec that they share."""

    spec: ScoreSpec
    scores: tuple[Score, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def __getitem__(self, place: int) -> Score:
        return self.scores[place]

    def values(self) -> list[float | None]:
        """The numbers in order, ``None`` where one is missing."""
        return [score.value for score in self.scores]

    def ranking(self) -> list[int]:
        """Places in this batch from best to worst: ties keep their order, missing scores come last."""

        def key(place: int) -> tuple[bool, float]:
            value = self.scores[place].value
            return (value is None, 0.0 if value is None else -self.spec.goodness(value))

        return sorted(range(len(self.scores)), key=key)

    def take(self, places: Sequence[int]) -> ScoreBatch:
        """The scores at these places, each with its original index."""
        return replace(self, scores=tuple(self.scores[place] for place in places))

    def with_seeds(self, seeds: Sequence[int | None]) -> ScoreBatch:
        """The same scores, each with the seed of its image."""
        if len(seeds) != len(self.scores):
            raise BadInput(f"{len(self.scores)} seeds", str(len(seeds)), "Give one seed per image.")
        return replace(self, scores=tuple(replace(s, seed=seed) for s, seed in zip(self.scores, seeds, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"spec": self.spec.to_dict(), "scores": [score.to_dict() for score in self.scores]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScoreBatch:
        """The inverse of :meth:`to_dict`."""
        return cls(ScoreSpec.from_dict(data["spec"]), tuple(Score(**score) for score in data["scores"]))
