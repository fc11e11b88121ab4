"""What to train a DP-IQA head on, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..methods.dp_iqa_settings import DpSettings
from .rated_request import RatedRequest


@dataclass(frozen=True, slots=True)
class DpRequest(RatedRequest):
    """One training; everything random follows from ``seed`` and the step.

    Published: Adam 1e-5, rate × 0.2 once, batches of 16, squared error alone (the paper's figure also has the margin
    ranking). Beside :class:`~.rated_request.RatedRequest`:

    Attributes:
        settings: How images are read.
        sizes: Of the networks: arguments of :func:`~..methods.dp_iqa_head.fitting_shape`; published where left out, or
            the start's where there is one.
        start: A head to begin from; only its adapters may differ in shape.
        freeze_decoder: Train the adapters alone.
        checkpoint: Gradient checkpointing: forwards are computed again in the backward pass, and the memory of a step
            is that of one forward of ``rows`` pictures.
    """

    settings: DpSettings = field(default_factory=DpSettings)
    sizes: dict[str, Any] = field(default_factory=dict)
    start: Path | None = None
    freeze_decoder: bool = False
    checkpoint: bool = False
