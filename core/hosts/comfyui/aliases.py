"""Tensors over storage that another tensor holds already: no copy, and none of its marks for autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def alias(tensor: Tensor) -> Tensor:
    """An ordinary tensor over the storage of ``tensor``; no copy. Call it outside inference mode."""
    found = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return found.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def is_plain(tensor: Tensor) -> bool:
    """Whether a parameter is an ordinary tensor, not a quantised one in a class of its own."""
    return type(tensor) in (Tensor, torch.nn.Parameter)
