"""How much fits, and what to do when it did not: asked of ComfyUI's own memory management."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from comfy import model_management

from ... import memory

#: A forward that is kept for a backward holds its activations. An estimate on the safe side, not measured on a card:
#: running out of memory still halves the batch.
BACKWARD_FACTOR = 6.0
#: ComfyUI's own safety margin over its estimate.
MARGIN = 1.5
#: ComfyUI frees this much more than a model's size before it loads one.
_LOADING = 1.1
#: Latent pixels in one forward on a CPU. Small images gain from company there; from one of 256 × 256 pixels on, more
#: rows in a forward take as long as one after the other, and hold more memory.
CPU_PIXELS = 1024

T = TypeVar("T")


def rows_that_fit(patcher: Any, latent_shape: Sequence[int], *, backward: bool = False) -> int:
    """How many rows of [C, h, w] one forward may hold beside the weights, and gains from; at least 1."""
    one = patcher.model.memory_required([1, *latent_shape]) * MARGIN * (BACKWARD_FACTOR if backward else 1.0)
    fit = times_in_free_memory(patcher, one)
    if torch.device(patcher.load_device).type == "cpu":
        return min(fit, rows_on_a_cpu(latent_shape))
    return fit


def rows_on_a_cpu(latent_shape: Sequence[int]) -> int:
    """How many rows of [C, h, w] a CPU gains from in one forward; at least 1."""
    return max(1, CPU_PIXELS // math.prod(latent_shape[1:]))


def times_in_free_memory(patcher: Any, need: float) -> int:
    """How often ``need`` bytes fit beside a model's weights, loaded or not yet; at least 1."""
    not_loaded = max(0, patcher.model_size() - patcher.loaded_size())
    same_place = patcher.load_device == patcher.offload_device
    free = model_management.get_free_memory(patcher.load_device) - (0 if same_place else not_loaded)
    return max(1, int(free // max(1.0, need)))


def fits_beside_the_loaded(patcher: Any, activations: float) -> bool:
    """Whether ComfyUI can load this model without pushing another one off its device, even in part.

    Args:
        patcher: The model.
        activations: Bytes that a call needs beside its weights.
    """
    device = patcher.load_device
    if device == torch.device("cpu"):
        return True
    others = [loaded for loaded in model_management.current_loaded_models if loaded.model is not patcher]
    if not any(loaded.device == device and loaded.model_loaded_memory() for loaded in others):
        return True
    reserved = model_management.extra_reserved_memory()
    needed = max(model_management.minimum_inference_memory(), activations + reserved)
    missing = 0 if patcher.loaded_size() else patcher.model_size()
    return model_management.get_free_memory(device) > _LOADING * missing + needed


def is_there(patcher: Any, activations: float) -> bool:
    """Whether a model that is loaded whole or not at all is on its device already, with room for a call beside it."""
    known = any(loaded.model is patcher for loaded in model_management.current_loaded_models)
    if not known or not patcher.loaded_size():
        return False
    return model_management.get_free_memory(patcher.load_device) > activations


def in_chunks(count: int, size: int, work: Callable[[int, int], T]) -> tuple[list[T], int]:
    """As :func:`latent_critic.core.memory.in_chunks`, with ComfyUI's cache emptied before each smaller chunk."""
    return memory.in_chunks(count, size, work, model_management.soft_empty_cache)
