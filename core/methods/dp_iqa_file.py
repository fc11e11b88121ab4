"""A DP-IQA head's file: safetensors with everything known of it in the metadata; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import BadInput
from ..files import whole_file
from ..heads.head import HeadMeta
from .dp_iqa_head import REDUCER, DpHead, DpNets, DpShape
from .dp_iqa_settings import DpSettings
from .trained_file import check_finite, meta_facts, plain_facts, read_trained

#: A head for the embedded model.
SHIPPED = Path(__file__).parents[1] / "assets" / "dp_iqa" / "critic_ldm.safetensors"
FORMAT = 1
KEY = "latent_critic_dp_iqa"
_REMEDY = "Train it again (latent-critic train dp-iqa), or copy the file again."
#: Kept in full precision: what brings features to one scale.
_FULL = ("centre", "scale")


def save_dp_iqa(path: str | Path, head: DpHead) -> None:
    """Write a head, its weights in half precision, whole or not at all.

    Raises:
        BadInput: the file's name does not end in ``.safetensors``, or a head out of the authors' files.
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput("a file name that ends in .safetensors", path.name, "Rename it.")
    if head.academic:
        raise BadInput("a head of our own training", "the authors' weights", "Keep their file; it is academic use.")
    told = {
        "format": FORMAT,
        **plain_facts(head.meta),
        "taps": list(head.taps),
        "reducers": [REDUCER],
        "shape": head.nets.shape.to_dict(),
    }
    with whole_file(path) as temporary:
        save_file(_tensors(head.nets), temporary, metadata={KEY: json.dumps(told, allow_nan=False)})


def _tensors(nets: DpNets) -> dict[str, Tensor]:
    return {
        name: (value if _is_full(name) else value.half()).cpu().contiguous().clone()
        for name, value in nets.state_dict().items()
    }


def _is_full(name: str) -> bool:
    return name.rpartition(".")[2].rstrip("0123456789") in _FULL


def rounded(nets: DpNets) -> None:
    """Round the weights as a file holds them, so that what is measured is what is written."""
    nets.load_state_dict({name: value.float() for name, value in _tensors(nets).items()})


def is_dp_iqa(path: str | Path) -> bool:
    """Whether a file is a DP-IQA head of ours; False for one that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as handle:
            return KEY in (handle.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_dp_iqa(path: str | Path) -> DpHead:
    """Read a head.

    Raises:
        UnreadableFile: missing, torn, or no DP-IQA head of a known format.
    """
    return read_trained(
        Path(path), _head, what="a DP-IQA head", key=KEY, form=FORMAT,
        foreign="The authors' files load by themselves.", remedy=_REMEDY,
    )  # fmt: skip


def _head(told: dict[str, Any], tensors: Mapping[str, Tensor]) -> DpHead:
    known = meta_facts(told)
    check_finite(tensors, _REMEDY)
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten below
        nets = DpNets(DpShape.from_dict(told["shape"]))
    nets.load_state_dict({name: value.float() for name, value in tensors.items()})
    settings = DpSettings.from_dict(known["settings"])
    return DpHead(HeadMeta(**known), nets.eval().requires_grad_(False), settings, tuple(told["taps"]))
