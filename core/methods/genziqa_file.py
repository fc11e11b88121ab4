"""A GenzIQA head's file: safetensors with everything known of it in the metadata; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..backbone.adaptation import CrossLora, Part, SoftPrompts, Where
from ..errors import BadInput
from ..files import whole_file
from ..heads.head import HeadMeta
from .genziqa_head import REDUCER, GenzHead
from .genziqa_settings import GenzSettings
from .trained_file import check_finite, meta_facts, plain_facts, read_trained

#: A head for the embedded model.
SHIPPED = Path(__file__).parents[1] / "assets" / "genziqa" / "critic_ldm.safetensors"
FORMAT = 1
KEY = "latent_critic_prompts"
_REMEDY = "Train it again (latent-critic train genziqa), or copy the file again."


def save_genziqa(path: str | Path, head: GenzHead, *, half: bool = False) -> None:
    """Write a head, whole or not at all.

    Args:
        path: Of the file.
        head: The head.
        half: Vectors and matrices in fp16, which they should have been rounded to before they were measured.

    Raises:
        BadInput: the file's name does not end in ``.safetensors``.
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput("a file name that ends in .safetensors", path.name, "Rename it.")
    told = {
        "format": FORMAT,
        **plain_facts(head.meta),
        "taps": list(head.taps),
        "reducers": [REDUCER],
        "texts": list(head.prompts.texts),
        "alpha": head.lora.alpha,
        "padding_mask": head.prompts.padding_mask,
    }
    with whole_file(path) as temporary:
        save_file(
            _tensors(head, torch.float16 if half else torch.float32),
            temporary,
            metadata={KEY: json.dumps(told, allow_nan=False)},
        )


def _tensors(head: GenzHead, dtype: torch.dtype) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, vectors in head.prompts.context.items():
        found[f"context.{name}"] = vectors.detach().to(dtype)
        found[f"suffix.{name}"] = torch.tensor(head.prompts.suffix[name], dtype=torch.int32)
    for (tap, part), (down, up) in head.lora.layers.items():
        for side, matrix in (("down", down), ("up", up)):
            found[f"lora.{tap}.{part}.{side}"] = matrix.detach().to(dtype)
    return {name: value.cpu().contiguous().clone() for name, value in found.items()}


def is_genziqa(path: str | Path) -> bool:
    """Whether a file is a GenzIQA head of ours; False for one that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as handle:
            return KEY in (handle.metadata() or {})
    except (OSError, SafetensorError):
        return False


def is_half(path: str | Path) -> bool:
    """Whether a head's vectors and matrices lie in the file in fp16; False for one that is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as handle:
            names = [name for name in handle.keys() if not name.startswith("suffix.")]  # noqa: SIM118
            kinds = {handle.get_slice(name).get_dtype() for name in names}
    except (OSError, SafetensorError):
        return False
    return kinds == {"F16"}


def load_genziqa(path: str | Path) -> GenzHead:
    """Read a head.

    Raises:
        UnreadableFile: missing, torn, or no GenzIQA head of a known format.
    """
    return read_trained(
        Path(path), _head, what="a GenzIQA head", key=KEY, form=FORMAT,
        foreign="Import the authors' files first.", remedy=_REMEDY,
    )  # fmt: skip


def _head(told: dict[str, Any], tensors: Mapping[str, Tensor]) -> GenzHead:
    known = meta_facts(told)
    check_finite(tensors, _REMEDY)
    context = {
        name.removeprefix("context."): value.float() for name, value in tensors.items() if name.startswith("context.")
    }
    suffix = {name: tuple(map(tuple, tensors[f"suffix.{name}"].tolist())) for name in context}
    prompts = SoftPrompts(context, suffix, tuple(told["texts"]), bool(told.get("padding_mask", False)))
    lora = CrossLora(dict(_layers(tensors)), told["alpha"])
    return GenzHead(HeadMeta(**known), prompts, lora, GenzSettings.from_dict(known["settings"]), tuple(told["taps"]))


def _layers(tensors: Mapping[str, Tensor]) -> list[tuple[Where, tuple[Tensor, Tensor]]]:
    found = []
    for name in tensors:
        if name.startswith("lora.") and name.endswith(".down"):
            stem = name.removesuffix(".down")
            tap, part = stem.removeprefix("lora.").rsplit(".", 1)
            found.append(((tap, cast("Part", part)), (tensors[name].float(), tensors[f"{stem}.up"].float())))
    return found
