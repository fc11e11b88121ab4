"""What scoring took: images a second, denoiser calls, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .speed_memory import peak_bytes

_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Costs:
    """Of the pictures that a run itself scored; ``None`` where there were none, or where it cannot be measured.

    Attributes:
        images_per_second: Pictures over the seconds inside the scorer; reading files is not counted.
        denoiser_calls: Rows through the denoiser per picture; 0 for a scorer without one.
        peak_mib: Most memory while scoring, in MiB: of the CUDA device where there is one, else of this process
            (weights, libraries and all).
        peak_of: ``cuda`` or ``process``.
    """

    images_per_second: float | None = None
    denoiser_calls: float | None = None
    peak_mib: float | None = None
    peak_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


class Meter:
    """Add up over every call of one scorer.

    Args:
        calls: Rows that went through the denoiser so far; ``None`` for a scorer without one.
    """

    def __init__(self, calls: Callable[[], int] | None = None) -> None:
        self._calls = calls
        self._seconds, self._images, self._rows, self._peak = 0.0, 0, 0, 0
        self._device: str | None = None

    @contextmanager
    def measure(self, images: int) -> Iterator[None]:
        """Around one call of the scorer with that many images."""
        before = self._calls() if self._calls else 0
        self._device = _restart_peak()
        start = time.perf_counter()
        yield
        _finish(self._device)
        self._seconds += time.perf_counter() - start
        self._images += images
        self._rows += (self._calls() if self._calls else 0) - before
        self._peak = max(self._peak, _peak(self._device))

    @property
    def costs(self) -> Costs:
        """What was measured so far."""
        if not self._images:
            return Costs()
        return Costs(
            self._images / self._seconds if self._seconds > 0 else None,
            self._rows / self._images,
            self._peak / 2**20 if self._peak else None,
            self._device if self._peak else None,
        )


def _restart_peak() -> str | None:
    """Forget the peak so far; what it is measured of, or ``None`` where this system cannot forget it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return "cuda"
    with suppress(OSError):
        _RESET.write_text("5")  # Linux: the peak of resident memory starts anew
        return "process"
    return None


def _finish(device: str | None) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _peak(device: str | None) -> int:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return peak_bytes() if device == "process" else 0
