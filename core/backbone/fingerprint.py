"""A dtype-tolerant sketch of a model's unpatched weights: the same checkpoint in fp32, bf16, fp16 or fp8 matches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a head file remembers of the model it was fitted on.

    Attributes:
        family: The family's name.
        sketch: A few hundred numbers drawn from fixed places of the weights.
        patched: Whether LoRA or other patches lie over the weights (warn, and score).
    """

    family: str
    sketch: tuple[float, ...]
    patched: bool = False
