"""A head's file: safetensors with everything known of it beside the numbers; never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import BadInput, UnreadableFile
from ..files import whole_file
from .check import Fit, Wanted, check_head
from .head import Head, HeadMeta, Regressor
from .kernel import Kernel
from .layout import Layout
from .link import Link
from .mlp import Mlp
from .ridge import Ridge
from .scaling import Scaler

__all__ = ["FORMAT", "Fit", "Wanted", "check_head", "describe", "head_digest", "load_head", "save_head"]

FORMAT = 1
_KEY = "latent_critic_head"
_REGRESSORS: dict[str, Callable[[dict[str, Tensor]], Regressor]] = {
    "ridge": Ridge.of,
    "kernel": Kernel.of,
    "mlp": Mlp.of,
}
_REMEDY = "Fit the head again (latent-critic fit-head, or the Fit Head node), or copy the file again."


def save_head(path: str | Path, head: Head) -> None:
    """Write a head, whole or not at all.

    Raises:
        BadInput: the file's name does not end in ``.safetensors``.
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput("a file name that ends in .safetensors", path.name, "Rename it.")
    tensors = {**head.scaler.tensors(), **head.regressor.tensors()}
    told = {
        "format": FORMAT,
        **describe(head),
        "layout": head.layout.to_list(),
        "link": {"kind": head.link.kind, "numbers": list(head.link.numbers)},
        "error": head.error,
        "regressor": head.regressor.kind,
    }
    with whole_file(path) as temporary:
        save_file(
            {name: value.contiguous().clone() for name, value in tensors.items()},
            temporary,
            metadata={_KEY: json.dumps(told, allow_nan=False)},
        )


def describe(head: Head) -> dict[str, Any]:
    """The head's meta as plain types, and its taps and reducers by name."""
    told = asdict(head.meta)
    for name in ("validation", "settings", "identity"):
        told[name] = dict(getattr(head.meta, name))
    return {**told, "taps": list(head.layout.taps), "reducers": list(head.layout.reducers)}


def load_head(path: str | Path) -> Head:
    """Read a head.

    Raises:
        UnreadableFile: missing, torn, or no head of a known format.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as handle:
            told = _told(handle.metadata() or {})
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        return _head(told, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
        raise UnreadableFile(f"a head at {path}", got, _REMEDY) from error


def head_digest(head: Head) -> str:
    """16 hex digits that tell this head from others: of its numbers and of what is known of it."""
    found = hashlib.sha256(json.dumps([describe(head), head.layout.to_list()], sort_keys=True, default=str).encode())
    for name, tensor in sorted({**head.scaler.tensors(), **head.regressor.tensors()}.items()):
        found.update(name.encode())
        found.update(tensor.double().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _told(metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise BadInput("a head's facts in the metadata", "none", _REMEDY)
    told = json.loads(metadata[_KEY])
    if told.get("format") != FORMAT:
        raise BadInput(f"head format {FORMAT}", str(told.get("format")), "Update the package, or fit the head again.")
    return told


def _head(told: dict[str, Any], tensors: dict[str, Tensor]) -> Head:
    layout = Layout.from_list(told["layout"])
    names = HeadMeta.__dataclass_fields__
    known = {name: value for name, value in told.items() if name in names}
    known["sigmas"] = tuple(known["sigmas"])
    known["scale"] = tuple(known["scale"]) if known["scale"] else None
    scaler = Scaler.of(tensors)
    if tuple(scaler.centre.shape) != (layout.size,) or not bool(scaler.gain.isfinite().all()):
        raise BadInput(f"{layout.size} features", f"{list(scaler.centre.shape)}", _REMEDY)
    link = Link(told["link"]["kind"], tuple(told["link"]["numbers"]))
    regressor = _REGRESSORS[told["regressor"]](tensors)
    return Head(layout, HeadMeta(**known), scaler, regressor, link, float(told["error"]))
