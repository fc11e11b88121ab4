"""What a run of GenzIQA training leaves: the head with all that is known of it, and how well it did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .genziqa_data import Part, names_digest
from .genziqa_measure import Readout, centre_and_spread
from .genziqa_request import GenzRequest

if TYPE_CHECKING:
    from ..methods.genziqa_head import GenzHead

_TOLD = ("steps", "batch", "rate", "one_level", "flip", "ladders", "share", "limit", "precision", "seed")


@dataclass(frozen=True, slots=True)
class GenzResult:
    """What came out.

    Attributes:
        head: The head at the best validation, as written; ``None`` while minutes ran out before the last step.
        validation: Its agreement with people on pictures of the first set that neither training nor choice saw.
        step: Steps made in all.
        seconds_per_step: Of the steps of this call.
    """

    head: GenzHead | None
    validation: dict[str, Any]
    step: int
    seconds_per_step: float


def with_facts(
    head: GenzHead,
    request: GenzRequest,
    parts: Sequence[Part],
    validation: dict[str, Any],
    readout: Readout,
    raw: np.ndarray,
    others: Sequence[dict[str, Any]],
) -> GenzHead:
    """A trained head, free of gradients, with what it was trained on and how.

    Args:
        head: Context and LoRA at the best validation.
        request: What was trained.
        parts: The sets, the first of which was measured on.
        validation: What was measured on unseen pictures.
        readout: Gain and offset of the score.
        raw: Raw values [pictures] of pictures trained on, whose mean and deviation are the head's centre and spread.
        others: Gain, offset, centre and spread at other noise levels.
    """
    head = head.with_settings(gain=readout.gain, offset=readout.offset)
    told = {name: getattr(request, name) for name in _TOLD} | {"by_content": request.content}
    told["unseen"] = names_digest(parts[0].unseen)
    meta = replace(
        head.meta,
        training_set=", ".join(part.name for part in parts),
        pictures=sum(len(part.train) for part in parts),
        calibrated_on=request.calibrated_on,
        scale=None if request.calibrated_on is None else (0.0, 100.0),
        **centre_and_spread(raw, readout),
        validation=json.loads(json.dumps(validation)),
        settings={
            **head.meta.settings,
            "training": {**told, "losses": asdict(request.losses)},
            "readouts": list(others),
        },
    )
    context = {name: value.detach().clone() for name, value in head.prompts.context.items()}
    layers = {where: (down.detach().clone(), up.detach().clone()) for where, (down, up) in head.lora.layers.items()}
    prompts, lora = replace(head.prompts, context=context), replace(head.lora, layers=layers)
    return replace(head, meta=meta, prompts=prompts, lora=lora)
