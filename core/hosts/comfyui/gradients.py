"""Gradients inside ComfyUI's executor, which runs nodes in inference mode.

Weights loaded there are inference tensors, which autograd may not save. For the duration they are replaced by aliases:
ordinary tensors over the same storage. Nothing is copied, and the model's own objects come back afterwards. Layers that
work on a passing copy of their weight take the form of ``recasting.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from comfy import model_management
from comfy.ldm.models.autoencoder import AutoencodingEngine
from torch import Tensor

from .aliases import alias, is_plain
from .quantised import holds_values
from .recasting import recast


def usable(value: Any) -> Any:
    """The same structure with every inference tensor in it aliased."""
    if isinstance(value, Tensor):
        return alias(value) if value.is_inference() else value
    if isinstance(value, dict):
        return {key: usable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(usable(inner) for inner in value)
    return value


@contextmanager
def gradient_context(*networks: torch.nn.Module, holders: Sequence[object] = ()) -> Iterator[None]:
    """Autograd works on these networks until the block ends; their parameters themselves get no gradient.

    A network that is loaded *inside* the block keeps its inference tensors: load it first.

    Args:
        networks: The networks.
        holders: Plain objects that hold tensors beside them, such as a latent format its means.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if any(map(_may_overwrite, networks)):
            stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
        stack.enter_context(_in_training())
        for network in networks:
            stack.enter_context(_aliased(network))
            stack.enter_context(recast(network))
        for holder in holders:
            stack.enter_context(_held(holder))
        yield


def _may_overwrite(network: torch.nn.Module) -> bool:
    """Whether a network may write over what autograd saved, so that every operation has to be watched.

    ComfyUI's denoisers do, and its other networks count as if they did. Its image autoencoders only activate in place
    after norms, which is allowed; networks of ours write over nothing.
    """
    return type(network).__module__.startswith("comfy.") and not isinstance(network, AutoencodingEngine)


@contextmanager
def _aliased(network: torch.nn.Module) -> Iterator[None]:
    replaced: list[tuple[dict[str, Any], str, Tensor, Tensor]] = []
    try:
        for module in network.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None and holds_values(tensor) and _hinders(tensor):
                        replaced.append((store, name, tensor, _stand_in(tensor)))
                        store[name] = replaced[-1][-1]  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for store, name, tensor, stand_in in replaced:
            # What ComfyUI moved or patched meanwhile stays as it left it: it keeps account of where weights lie.
            if store.get(name) is stand_in and stand_in.data_ptr() == tensor.data_ptr():
                store[name] = tensor


def _hinders(tensor: Tensor) -> bool:
    """Autograd may not save an inference tensor, weights need no gradient, a class of its own may get in the way."""
    return tensor.is_inference() or tensor.requires_grad or not is_plain(tensor)


@contextmanager
def _held(holder: object) -> Iterator[None]:
    before = {name: value for name, value in vars(holder).items() if isinstance(value, Tensor) and value.is_inference()}
    vars(holder).update({name: alias(value) for name, value in before.items()})
    try:
        yield
    finally:
        vars(holder).update(before)


def _stand_in(tensor: Tensor) -> Tensor:
    plain = tensor.detach() if is_plain(tensor) and not tensor.is_inference() else alias(tensor)
    return torch.nn.Parameter(plain, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else plain


@contextmanager
def _in_training() -> Iterator[None]:
    """Newer ComfyUI has fused kernels without autograd, which this flag keeps out of the way."""
    if not hasattr(model_management, "in_training"):
        yield
        return
    before = model_management.in_training
    model_management.in_training = True
    try:
        yield
    finally:
        model_management.in_training = before
