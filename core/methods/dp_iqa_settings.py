"""How a DP-IQA head reads an image. "Published" below is what the authors' code does; everything else is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..backbone.schedule import STEPS
from ..errors import BadInput
from .native_size import native_policy, native_shape

if TYPE_CHECKING:
    from ..backbone.contracts import Family

ValueRange = Literal["vae", "unit"]
Text = Literal["end", "projected"]
RANGES: Mapping[ValueRange, tuple[float, float]] = {"vae": (-1.0, 1.0), "unit": (0.0, 1.0)}


@dataclass(frozen=True, slots=True)
class DpSettings:
    """Part of a head's file.

    Attributes:
        timestep: Of the one forward; no noise is added (published: 1).
        value_range: What the VAE is given: ``vae`` its own [-1, 1], or ``unit`` [0, 1] (published).
        text: A sentence's token: ``end``, the text encoder's state at the end of the sentence, as wide as the
            cross-attention of any family; or ``projected``, CLIP's projected text features (published; SD 1.x only).
        square: Published: resized to a square, whatever the aspect. False keeps the aspect at the same area.
        side: Root of the area in pixels; the family's native size when left out (published: 512).
        sample: Seed of the draw from the VAE's posterior (published: a draw); left out, its mode.
    """

    timestep: int = 1
    value_range: ValueRange = "vae"
    text: Text = "end"
    square: bool = False
    side: int | None = None
    sample: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.timestep < STEPS:
            raise BadInput(f"a timestep from 0 to {STEPS - 1}", str(self.timestep), "Published: 1.")
        if self.value_range not in RANGES or self.text not in ("end", "projected"):
            got = f"{self.value_range!r}, {self.text!r}"
            raise BadInput("value range vae or unit, text end or projected", got, "The file may be damaged.")
        if self.side is not None and self.side < 8:
            raise BadInput("a side of 8 pixels or more", str(self.side), "Published: 512.")

    def check(self, family: Family) -> None:
        """Whether this family's latents can have that size.

        Raises:
            BadInput: a side that is not divisible by the pixels of a latent pixel.
        """
        step = family.latent_stride
        if self.side is not None and self.side % step:
            near = max(step, round(self.side / step) * step)
            raise BadInput(f"a side divisible by {step}", str(self.side), f"Use {near}.")

    def shape(self, height: int, width: int, family: Family) -> tuple[int, int]:
        """Pixels that an image of this size is scored at.

        Raises:
            BadInput: longer than 16:1.
        """
        found = native_shape(height, width, family, self.side)
        side = self.side or family.native_size
        return (side, side) if self.square else found

    def size_policy(self, family: Family) -> str:
        """In words, for specs and cards."""
        side = self.side or family.native_size
        square = f"the whole image resized (bicubic, antialiased) to {side}×{side} px, whatever its aspect"
        return square if self.square else native_policy(family, self.side)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> DpSettings:
        """The inverse of :meth:`to_dict`; what it does not know is left out."""
        return cls(**{name: told[name] for name in cls.__dataclass_fields__ if name in told})


#: As the authors' code reads an image, but for the VAE's posterior, of which the mode is taken.
PUBLISHED = replace(DpSettings(), value_range="unit", text="projected", square=True, side=512)
