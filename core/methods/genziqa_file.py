"""A GenzIQA head's file: safetensors with everything known of it in the metadata; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..backbone.adaptation import CrossLora, Part, SoftPrompts, Where
from ..errors import BadInput, UnreadableFile
from ..files import whole_file
from ..heads.head import HeadMeta
from .genziqa_head import REDUCER, GenzHead
from .genziqa_settings import GenzSettings

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
        **_plain(head.meta),
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


def _plain(meta: HeadMeta) -> dict[str, Any]:
    told = asdict(meta)
    return {**told, **{name: dict(told[name]) for name in ("validation", "settings", "identity")}}


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


def load_genziqa(path: str | Path) -> GenzHead:
    """Read a head.

    Raises:
        UnreadableFile: missing, torn, or no GenzIQA head of a known format.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as handle:
            told = _told(handle.metadata() or {})
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        return _head(told, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"a GenzIQA head at {path}", got, _REMEDY) from error


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise BadInput("a GenzIQA head's facts in the metadata", "none", "Import the authors' files first.")
    told = json.loads(metadata[KEY])
    if told.get("format") != FORMAT:
        raise BadInput(f"head format {FORMAT}", str(told.get("format")), "Update the package, or train it again.")
    return told


def _head(told: dict[str, Any], tensors: Mapping[str, Tensor]) -> GenzHead:
    known = {name: value for name, value in told.items() if name in HeadMeta.__dataclass_fields__}
    known |= {"sigmas": tuple(known["sigmas"]), "scale": tuple(known["scale"]) if known["scale"] else None}
    context = {
        name.removeprefix("context."): value.float() for name, value in tensors.items() if name.startswith("context.")
    }
    suffix = {name: tuple(map(tuple, tensors[f"suffix.{name}"].tolist())) for name in context}
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BadInput("finite values", f"NaN or infinity in {broken[0]}", _REMEDY)
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
