"""What functions and objects that nodes hung on a model hold inside: FreeU's factors, a schedule's noise levels.

Only values that are the same in two runs are told: numbers, texts, and the values of buffers. What is neither counts
as opaque, and is named, so that nobody takes two set-ups for one.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: Functions within functions, and structures within structures, that are followed.
_DEPTH = 6
#: Values of a tensor that are read at most; schedules are far shorter.
_VALUES = 1 << 16


def name_of(value: Any) -> str:
    """The name of a function or of an object's type; without addresses, which differ from run to run."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def told(value: Any, opaque: list[str], depth: int = _DEPTH) -> Any:
    """The value out of lists, texts and numbers; the names of what cannot be told are added to ``opaque``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth and isinstance(value, Mapping):
        # A key that is no plain value, such as a device, belongs to what a function remembers, not to its settings.
        kept = {str(key): inner for key, inner in value.items() if isinstance(key, bool | int | float | str)}
        return {key: told(inner, opaque, depth - 1) for key, inner in kept.items()}
    if depth and isinstance(value, list | tuple):
        return [told(inner, opaque, depth - 1) for inner in value]
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, type):
        return _type(value)
    if depth and isinstance(value, functools.partial):
        return [told(part, opaque, depth - 1) for part in (value.func, value.args, value.keywords)]
    if depth and isinstance(value, MethodType):
        return [name_of(value), told(value.__self__, opaque, depth - 1)]
    if depth and isinstance(value, FunctionType):
        return _function(value, opaque, depth)
    if depth and isinstance(value, nn.Module):
        return _module(value, opaque, depth)
    opaque.append(name_of(value))
    return name_of(value)


def object_told(value: Any, opaque: list[str]) -> Any:
    """As :func:`told`, for what a node put in place of a model's part, or has called: its attributes are settings."""
    if isinstance(value, FunctionType | MethodType | nn.Module | functools.partial | type) or not hasattr(
        value, "__dict__"
    ):
        return told(value, opaque)
    return [_type(type(value)), told(vars(value), opaque)]


def _type(value: type) -> list[str]:
    """With its bases: ComfyUI's nodes make classes of one name out of different ones."""
    return [name_of(base) for base in value.__mro__ if base is not object]


def _function(value: FunctionType, opaque: list[str], depth: int) -> list[Any]:
    """Name, defaults, and what the closure holds; without None and what the function itself sets anew."""
    anew = _set_within(value.__code__)
    inner = {
        name: told(held, opaque, depth - 1) for name, held in _closure(value) if held is not None and name not in anew
    }
    defaults = [told(held, opaque, depth - 1) for held in (value.__defaults__, value.__kwdefaults__)]
    return [name_of(value), defaults, inner]


def _closure(value: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that was never given a value
            yield name, cell.cell_contents


def _set_within(code: CodeType) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_DEREF"}


def _module(value: nn.Module, opaque: list[str], depth: int) -> list[Any]:
    if any(True for _ in value.children()):  # a network, whose layers have attributes of their own
        opaque.append(name_of(value))
    plain = {name: held for name, held in vars(value).items() if not name.startswith("_") and name != "training"}
    return [_type(type(value)), told(plain, opaque, depth - 1), dict(_tensors(value))]


def _tensors(module: nn.Module) -> Iterator[tuple[str, str]]:
    for found in (module.named_buffers(), module.named_parameters()):
        for name, tensor in found:
            yield name, _hash(tensor)


def _hash(tensor: Tensor) -> str:
    flat = tensor.detach().reshape(-1)
    step = -(-flat.numel() // _VALUES) or 1
    values = flat[::step].cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape))).encode() + values).hexdigest()[:16]
