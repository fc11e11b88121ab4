"""A DiffV2IQA head's file: safetensors with everything known of it in the metadata; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadInput
from ..files import whole_file
from ..heads.head import HeadMeta
from ..nets.diff_v2 import DiffShape, DiffV2Nets
from ..nets.diff_v2_vit import VisionTransformer
from .diff_v2_iqa_head import DiffHead
from .diff_v2_iqa_settings import DiffSettings
from .trained_file import check_finite, meta_facts, plain_facts, read_trained

FORMAT = 1
KEY = "latent_critic_diff_v2_iqa"
_REMEDY = "Train it again (latent-critic train diff-v2-iqa), or copy the file again."
#: Kept in full precision: what brings features to one scale.
_FULL = ("_centre", "_scale", "weight")


def save_diff_v2(path: str | Path, head: DiffHead) -> None:
    """Write a head, its weights in half precision, whole or not at all.

    Raises:
        BadInput: the file's name does not end in ``.safetensors``.
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput("a file name that ends in .safetensors", path.name, "Rename it.")
    told = {"format": FORMAT, **plain_facts(head.meta), "shape": head.nets.shape.to_dict()}
    tensors = {f"nets.{name}": value for name, value in _tensors(head.nets).items()}
    if head.vit is not None:
        tensors |= {f"vit.{name}": value for name, value in _tensors(head.vit).items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(told, allow_nan=False)})


def _tensors(nets: nn.Module) -> dict[str, Tensor]:
    return {
        name: (value if "." not in name and name.endswith(_FULL) else value.half()).cpu().contiguous().clone()
        for name, value in nets.state_dict().items()
    }


def rounded(nets: nn.Module) -> None:
    """Round the weights as a file holds them, so that what is measured is what is written."""
    nets.load_state_dict({name: value.float() for name, value in _tensors(nets).items()})


def is_diff_v2(path: str | Path) -> bool:
    """Whether a file is a DiffV2IQA head; False for one that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as handle:
            return KEY in (handle.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_diff_v2(path: str | Path, ops: Any = nn) -> DiffHead:
    """Read a head.

    Args:
        path: Of the file.
        ops: Layers of a host that casts weights by itself.

    Raises:
        UnreadableFile: missing, torn, or no DiffV2IQA head of a known format.
    """
    return read_trained(
        Path(path), lambda told, tensors: _head(told, tensors, ops), what="a DiffV2IQA head", key=KEY, form=FORMAT,
        foreign=_REMEDY, remedy=_REMEDY,
    )  # fmt: skip


def _head(told: dict[str, Any], tensors: Mapping[str, Tensor], ops: Any) -> DiffHead:
    known = meta_facts(told)
    check_finite(tensors, _REMEDY)
    settings = DiffSettings.from_dict(known["settings"])
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten below
        nets = DiffV2Nets(DiffShape.from_dict(told["shape"]), ops=ops)
        own = any(name.startswith("vit.") for name in tensors)
        vit = VisionTransformer(settings.vit, ops) if own else None
    for prefix, module in (("nets.", nets), ("vit.", vit)):
        if module is not None:
            part = {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(part)
            module.eval().requires_grad_(False)
    return DiffHead(HeadMeta(**known), nets, settings, vit)
