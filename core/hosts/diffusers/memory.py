"""How much fits beside a pipeline: estimated from its networks' sizes, because diffusers keeps no account of memory.

A row's activations are counted from the channels and cells of the network's blocks. The factors are on the safe side
of what autograd was seen to keep on tiny networks (tests/host/test_diffusers_memory.py); not measured on a card. They
only spare failed attempts: running out of memory still halves the rows, and a VAE then works in tiles.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from ...backbone.contracts import Tap

#: Values per channel and cell of the widest block while it runs; and that every block keeps for a backward.
_RUNNING, _KEPT = 16, 64
#: A U-Net has as many blocks on its way down, which are no taps.
_BOTH_WAYS = 2
#: Values per pixel and channel of a VAE's first level while it runs (ComfyUI plans 17), and that a backward needs.
_VAE_RUNNING, _VAE_KEPT = 17, 64
_VAE_CHANNELS = 128
#: Of free memory, to be left.
_MARGIN = 1.25


def free_bytes(device: torch.device) -> float:
    """Memory that is free on a device, PyTorch's own reserve included; infinite where nobody tells."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    if device.type == "cpu":
        try:
            return float(importlib.import_module("psutil").virtual_memory().available)
        except ImportError:  # it comes with accelerate
            return math.inf
    return math.inf


def row_bytes(taps: Sequence[Tap], latent_shape: Sequence[int], dtype: torch.dtype, *, backward: bool = False) -> float:
    """Bytes of one row [C, h, w] in the denoiser.

    Args:
        taps: All of the network's.
        latent_shape: C, h, w.
        dtype: That it computes in.
        backward: Counts what a backward keeps.
    """
    cells = [
        tap.channels * math.prod(-(-side // tap.stride) for side in latent_shape[-2:])
        for tap in taps
        if tap.kind == "feature"
    ]
    values = (_KEPT if backward else 1) * _BOTH_WAYS * sum(cells) + _RUNNING * max(cells)
    return _MARGIN * values * dtype.itemsize


def vae_row_bytes(
    vae: Any, latent_shape: Sequence[int], stride: int, dtype: torch.dtype, *, backward: bool = False
) -> float:
    """Bytes of one row [C, h, w] in the VAE, whose latents are ``stride`` times smaller than its pictures."""
    widths = getattr(vae.config, "block_out_channels", None) or [getattr(vae.config, "base_dim", _VAE_CHANNELS)]
    pixels = math.prod(side * stride for side in latent_shape[-2:])
    return _MARGIN * pixels * widths[0] * (_VAE_KEPT if backward else _VAE_RUNNING) * dtype.itemsize


def rows_that_fit(device: torch.device, row: float, most: int) -> int:
    """How many rows of so many bytes fit into free memory: at least 1, at most ``most``."""
    free = free_bytes(device)
    return most if math.isinf(free) else max(1, min(most, int(free // max(1.0, row))))


def give_back(device: torch.device) -> None:
    """Let PyTorch return what it holds in reserve, before a smaller attempt."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
