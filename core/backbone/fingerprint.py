"""A dtype-tolerant sketch of a model's unpatched weights: the same checkpoint in fp32, bf16, fp16 or fp8 matches.

A few values are read from fixed places of a few tensors. Each tensor's values are divided by their own root mean
square, so that a scale kept beside quantised weights does not matter.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import BadInput

#: Tensors looked at, and values read from each.
TENSORS, VALUES = 16, 16
#: Largest relative distance of two sketches of one checkpoint. bf16 rounds by .002 (rms), e4m3 by .03, e5m2 by .06.
FINE, COARSE = 0.01, 0.1

_FORMAT = "lc1"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a head file remembers of the model it was fitted on.

    Attributes:
        family: The family's name.
        sketch: A few hundred numbers drawn from fixed places of the weights; empty where none could be read.
        patched: Whether LoRA or other patches lie over the weights (warn, and score).
        coarse: Whether the weights are kept in 8 bits or fewer, so that a match must allow for the rounding.
    """

    family: str
    sketch: tuple[float, ...]
    patched: bool = False
    coarse: bool = False

    def distance(self, other: Fingerprint) -> float:
        """Relative distance of two sketches: 0 for the same weights, about 1.4 for unrelated ones, inf if not alike."""
        if self.family != other.family or len(self.sketch) != len(other.sketch) or not self.sketch:
            return math.inf
        apart = math.dist(self.sketch, other.sketch)
        size = math.sqrt(math.hypot(*self.sketch) * math.hypot(*other.sketch))
        return apart / size if size > 0 else math.inf

    def matches(self, other: Fingerprint) -> bool:
        """Whether both were taken from the same checkpoint, whatever the dtype and whatever patches lie over it."""
        return self.distance(other) <= (COARSE if self.coarse or other.coarse else FINE)

    def to_text(self) -> str:
        """A short line of text for files."""
        halves = array("h", (round(max(-8.0, min(8.0, value)) * 4095) for value in self.sketch))
        if array("h", [1]).tobytes() != b"\x01\x00":
            halves.byteswap()
        flags = ("p" if self.patched else "") + ("c" if self.coarse else "")
        return ":".join((_FORMAT, self.family, flags, base64.b64encode(halves.tobytes()).decode("ascii")))

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """The inverse of :meth:`to_text`, to 1/8190 of a unit.

        Raises:
            BadInput: not a fingerprint of this format.
        """
        parts = text.split(":")
        try:
            if len(parts) != 4 or parts[0] != _FORMAT:
                raise ValueError("wrong format mark")
            halves = array("h", base64.b64decode(parts[3], validate=True))
        except ValueError as error:
            raise BadInput(
                f"a fingerprint that starts with {_FORMAT}:", repr(text[:40]), "The file may be damaged."
            ) from error
        if array("h", [1]).tobytes() != b"\x01\x00":
            halves.byteswap()
        return cls(parts[1], tuple(value / 4095 for value in halves), "p" in parts[2], "c" in parts[2])


def places(shapes: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """Which values to read: tensors evenly over the sorted names, places evenly over each tensor.

    Args:
        shapes: Name and element count of every matrix and kernel of the network, under its LDM names
            (``input_blocks.0.0.weight`` …), so that hosts agree.
    """
    names = sorted(shapes)
    count = min(TENSORS, len(names))
    picked = [names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)]
    return [(name, [(2 * i + 1) * size // (2 * VALUES) for i in range(VALUES)]) for name, size in picked]


def sketch(
    shapes: Iterable[tuple[str, int]], read: Callable[[str, Sequence[int]], Sequence[float]]
) -> tuple[float, ...]:
    """The sketch of a network whose values ``read(name, flat places)`` gives."""
    values: list[float] = []
    for name, where in places(shapes):
        found = [float(value) for value in read(name, where)]
        size = math.sqrt(sum(value * value for value in found) / len(found))
        values += [value / size if size > 0 else 0.0 for value in found]
    return tuple(values)
