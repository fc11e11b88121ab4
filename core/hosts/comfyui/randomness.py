"""Random numbers inside a forward: always the same, and the user's own streams go on as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch


@contextmanager
def repeatable(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Every global stream starts at ``seed`` inside the block; afterwards each is where it was before.

    Patches such as token merging and tiling draw from the global streams in every forward. The streams are those of
    torch on the CPU and on ``device``, NumPy and Python; other devices are left alone.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    streams = _streams(device)
    which = () if device.type == "mps" else (device,)  # torch.mps knows one device only
    state = None if streams is None else streams.get_rng_state(*which)
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would move every device's stream
        if streams is not None:
            with streams.device(device) if hasattr(streams, "device") else nullcontext():
                streams.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if streams is not None:
            streams.set_rng_state(state, *which)


def _streams(device: torch.device) -> Any:
    """The module that holds a device's own stream: ``torch.cuda``, ``torch.mps`` …; None for the CPU."""
    module = None if device.type == "cpu" else getattr(torch, device.type, None)
    return module if hasattr(module, "get_rng_state") and hasattr(module, "manual_seed") else None
