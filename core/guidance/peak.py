"""The most memory that tensors held on a device while something ran."""

from __future__ import annotations

import torch


class PeakMemory:
    """Measured from its making on; a device without such a counter gives ``None``.

    PyTorch keeps one peak per device, which is reset here.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" and torch.cuda.is_available() else None
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)

    def bytes(self) -> int | None:
        """The peak so far."""
        return None if self._device is None else torch.cuda.max_memory_allocated(self._device)
