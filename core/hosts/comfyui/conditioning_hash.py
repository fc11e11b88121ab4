"""A hash of what a sampler was told, where no prompt's text reaches a node: CONDITIONING, or a GUIDER's conditions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

_LOG = logging.getLogger(__name__)
#: What ComfyUI's guiders put beside a condition; the first is new in every run.
_OWN = ("uuid", "model_conds")


def of_conditioning(conditioning: Iterable[Any]) -> str | None:
    """CONDITIONING [[tensor, options], …] → its hash, 32 hexadecimal digits; ``None`` where it holds what has none.

    Such as tensors without plain values (sparse, nested, meta), or an option that holds itself.

    The tensors to the last bit, and every number, text and tensor among the options (areas, strengths, parts of the
    schedule). Of other objects, such as a ControlNet, only that there is one. The same text gives the same hash as
    long as the same text encoder encodes it in the same way.
    """
    # Some packs write a third part, which no sampler reads.
    return _digest(lambda: [{**entry[1], "cross_attn": entry[0]} for entry in conditioning])


def of_guider(guider: Any) -> str | None:
    """The hash of a GUIDER's conditions without the negative one: for CFGGuider that of its positive CONDITIONING."""
    known = guider.original_conds.items()
    return _digest(
        lambda: [{"cross_attn": None, **each} for name, all_ in known if name != "negative" for each in all_]
    )


def _digest(conditions: Callable[[], list[dict[str, Any]]]) -> str | None:
    found = hashlib.sha256()
    try:
        for condition in conditions():
            _feed(found, {name: value for name, value in condition.items() if name not in _OWN})
    except (TypeError, ValueError, RuntimeError) as error:  # RecursionError and NotImplementedError among the last
        _LOG.debug("No hash of a conditioning: %r", error)
        return None
    return found.hexdigest()[:32]


def _feed(found: Any, value: Any) -> None:
    """Every value with its kind and length before it, so that no two differ only in where one ends."""
    if isinstance(value, torch.Tensor):
        found.update(f"tensor {value.dtype} {list(value.shape)};".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        found.update(f"dict {len(value)};".encode())
        for name in sorted(value, key=str):
            _feed(found, str(name))
            _feed(found, value[name])
    elif isinstance(value, list | tuple):
        found.update(f"list {len(value)};".encode())
        for one in value:
            _feed(found, one)
    else:
        plain = value is None or isinstance(value, str | int | float | bool)
        text = repr(value) if plain else type(value).__name__
        found.update(f"{type(value).__name__} {len(text)} {text};".encode("utf-8", "surrogatepass"))
