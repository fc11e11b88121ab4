"""A pixel-space restorer's file: fp16 safetensors, with everything known of it in the metadata; never pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import BadInput, UnreadableFile
from ..files import whole_file
from ..nets.restorer import RestorerNet, RestorerShape

FORMAT = 1
KEY = "latent_critic_restorer"


@dataclass(frozen=True, slots=True)
class RestorerFacts:
    """What a restorer's file says about itself.

    Attributes:
        shape: Of the network.
        steps: To restore with, unless a user says otherwise.
        eta: 0 for DDIM, 1 for ancestral sampling as published; likewise.
        training: How it was trained, and on what.
        validation: Figures of pictures that were held back.
    """

    shape: RestorerShape
    steps: int = 50
    eta: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)


def save_restorer(path: str | Path, net: RestorerNet, facts: RestorerFacts) -> None:
    """Write weights in half precision and facts, whole or not at all.

    Raises:
        BadInput: the file's name does not end in ``.safetensors``, or a weight is not finite in half precision.
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput("a file name that ends in .safetensors", path.name, "Rename it.")
    tensors = {name: value.detach().half().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise BadInput("weights that are finite in half precision", "others", "Lower the learning rate; train again.")
    told = {**asdict(facts), "shape": facts.shape.to_dict(), "format": FORMAT}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(told, allow_nan=False)})


def load_restorer(path: str | Path) -> tuple[RestorerNet, RestorerFacts]:
    """The network in fp32 on the CPU, ready to restore, and its facts.

    Raises:
        UnreadableFile: missing, torn, or no restorer of a known format.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as handle:
            facts = _facts((handle.metadata() or {}).get(KEY))
            tensors = {name: handle.get_tensor(name).float() for name in handle.keys()}  # noqa: SIM118 (not a dict)
        with torch.device("meta"):  # building draws no weights; the user's seeds do not move
            net = RestorerNet(facts.shape)
        net.load_state_dict(tensors, assign=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {str(error)[:300]}"
        raise UnreadableFile(
            f"a restorer at {path}", got, "Train one (latent-critic train restorer), or copy the file again."
        ) from error
    return net.eval().requires_grad_(False), facts


def _facts(text: str | None) -> RestorerFacts:
    if text is None:
        raise BadInput("a restorer's facts in the metadata", "none", "Use a file of latent-critic train restorer.")
    told = json.loads(text)
    if told.pop("format", None) != FORMAT:
        raise BadInput(f"restorer format {FORMAT}", "another", "Update the package, or train it again.")
    return RestorerFacts(**{**told, "shape": RestorerShape.from_dict(told["shape"])})


def digest(net: RestorerNet) -> str:
    """16 hex digits of the weights in half precision: which ones made a restoration, whatever they are held in."""
    found = hashlib.sha256(json.dumps(net.shape.to_dict(), sort_keys=True).encode())
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode() + value.detach().half().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
