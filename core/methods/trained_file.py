"""What the files of heads that were trained as a whole share: safetensors, every fact as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import BadInput, UnreadableFile
from ..heads.head import HeadMeta

_Head = TypeVar("_Head")
_LONGEST = 300


def plain_facts(meta: HeadMeta) -> dict[str, Any]:
    """A head's facts as JSON takes them."""
    told = asdict(meta)
    return {**told, **{name: dict(told[name]) for name in ("validation", "settings", "identity")}}


def meta_facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a file's facts that ``HeadMeta`` holds, as it takes them."""
    known = {name: value for name, value in told.items() if name in HeadMeta.__dataclass_fields__}
    return known | {"sigmas": tuple(known["sigmas"]), "scale": tuple(known["scale"]) if known["scale"] else None}


def check_finite(tensors: Mapping[str, Tensor], remedy: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        BadInput: a tensor holds one.
    """
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BadInput("finite values", f"NaN or infinity in {broken[0]}", remedy)


def read_trained(
    path: Path,
    make: Callable[[dict[str, Any], Mapping[str, Tensor]], _Head],
    *,
    what: str,
    key: str,
    form: int,
    foreign: str,
    remedy: str,
) -> _Head:
    """Read a file's facts and tensors, and make the head of them.

    Args:
        path: Of the file.
        make: Facts, tensors → head.
        what: What the file should be, with its article.
        key: Of the facts in the metadata.
        form: The known number of the format.
        foreign: What to do with a file that has no facts.
        remedy: What to do with a damaged one.

    Raises:
        UnreadableFile: missing, torn, or no such head of a known format.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            told = _told(handle.metadata() or {}, what, key, form, foreign)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        return make(told, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {str(error)[:_LONGEST]}"
        raise UnreadableFile(f"{what} at {path}", got, remedy) from error


def _told(metadata: Mapping[str, str], what: str, key: str, form: int, foreign: str) -> dict[str, Any]:
    if key not in metadata:
        raise BadInput(f"{what}'s facts in the metadata", "none", foreign)
    told = json.loads(metadata[key])
    if told.get("format") != form:
        raise BadInput(f"head format {form}", str(told.get("format")), "Update the package, or train it again.")
    return told
