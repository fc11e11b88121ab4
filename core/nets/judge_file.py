"""The judge's file: fp16 safetensors with its facts beside the weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import BadInput, UnreadableFile
from ..files import whole_file
from .judge import JudgeNetwork
from .views import SIZE_POLICY

#: Layouts that can be read: 1 the plain head, 2 a head with a squeeze.
FORMATS = (1, 2)
FORMAT = FORMATS[0]


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """What a judge's file says about itself.

    Attributes:
        width: Hidden units of the head.
        calibrated_on: Whose ratings the 0…100 scale was fitted to.
        training_set: Name and part of the data.
        pictures: Training pictures.
        centre: Mean score over the training set.
        spread: Standard deviation of the scores over the training set.
        validation: Agreement on the validation part cut from the training set by content.
        settings: How it was trained.
        size_policy: How a picture becomes network input.
        format: Version of this layout.
        rank: Of the head's squeeze; 0 for none.
    """

    width: int
    calibrated_on: str
    training_set: str
    pictures: int
    centre: float
    spread: float
    validation: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    size_policy: str = SIZE_POLICY
    format: int = FORMAT
    rank: int = 0


def save(path: str | Path, network: JudgeNetwork, facts: JudgeFacts) -> None:
    """Write weights (fp16; the head's centre and scale fp32) and facts, whole or not at all."""
    tensors = {
        name: value.contiguous() if name in ("head.centre", "head.scale") else value.half().contiguous()
        for name, value in network.state_dict().items()
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"latent_critic_judge": json.dumps(asdict(facts))})


def read(path: str | Path, ops: Any = nn) -> tuple[JudgeNetwork, JudgeFacts]:
    """The network in fp32 on the CPU, ready to score, and its facts.

    Raises:
        UnreadableFile: missing, torn, or no judge of a known format.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as handle:
            facts = _facts((handle.metadata() or {}).get("latent_critic_judge"))
            tensors = {name: handle.get_tensor(name).float() for name in handle.keys()}  # noqa: SIM118
        with torch.random.fork_rng(devices=[]):  # building draws initial weights; the user's seeds must not move
            network = JudgeNetwork(facts.width, ops, facts.rank)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(
            f"a judge's weights at {path.name}", got, "Reinstall the package or train again."
        ) from error
    return network.eval().requires_grad_(False), facts


def _facts(text: str | None) -> JudgeFacts:
    if text is None:
        raise BadInput("a judge's facts in the metadata", "none", "Use a file written by latent-critic train judge.")
    found = json.loads(text)
    if found.get("format") not in FORMATS:
        raise BadInput(
            f"judge format {' or '.join(map(str, FORMATS))}",
            str(found.get("format")),
            "Update the package, or train again.",
        )
    return JudgeFacts(**found)


def digest(path: str | Path) -> str:
    """The first 16 hex digits of the file's SHA-256: which weights gave a score."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
