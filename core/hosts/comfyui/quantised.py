"""Weights that a loader keeps in a class of its own, in blocks of few bits: GGUF, as ComfyUI-GGUF loads it.

Such a parameter holds bytes; its true shape stands beside them, and its layer turns them into a weight (``get_weight``)
in every forward, LoRA included. Recognised by that form alone: nothing of that pack is imported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .aliases import is_plain


def in_blocks(network: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """Parameters in blocks by name, each with the layer that can read it."""
    return {
        f"{prefix}.{name}".lstrip("."): (module, weight)
        for prefix, module in network.named_modules()
        if hasattr(module, "get_weight")
        for name, weight in module.named_parameters(recurse=False)
        if not is_plain(weight) and hasattr(weight, "tensor_shape")
    }


def holds_values(tensor: Tensor) -> bool:
    """Whether a parameter is its own values: an ordinary tensor, or one that such a loader left in 16 or 32 bits."""
    return is_plain(tensor) or (hasattr(tensor, "tensor_shape") and tensor.dtype.is_floating_point)


def without_patches(layer: Any, weight: Any) -> Tensor:
    """The weight that the checkpoint holds, in fp32: its layer's own reading without LoRA."""
    kept = weight.patches
    weight.patches = []
    try:
        with torch.no_grad():
            return layer.get_weight(weight, torch.float32)
    finally:
        weight.patches = kept
