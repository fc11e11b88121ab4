"""What every restorer is: pictures in, the restored ones and two noise-containing intermediates out.

After DiffV2IQA's restoration (Wang et al., 2024, arXiv 2402.14401), reimplemented, not by its authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..guidance.result import Watch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Restored", "Restorer", "Watch"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restorer made of N pictures.

    Attributes:
        images: [N, 3, 3, H, W] in [0, 1], float32: the restored d0, then the two noise-containing d1 and d2, in order
            of growing noise. A row with a reason holds the input three times, or grey where that cannot be read.
        noise_levels: Of d0, d1, d2, as sqrt(1 - alpha_bar) in [0, 1]. d0 is the clean estimate made at its level and
            holds no noise any more; d1 and d2 hold theirs.
        calls: Denoiser calls of each picture, those of all its tiles together; 0 for one out of a cache.
        reasons: Why a row means nothing, or ``None``.
    """

    images: Tensor
    noise_levels: tuple[float, float, float]
    calls: tuple[int, ...]
    reasons: tuple[str | None, ...]


class Restorer(Protocol):
    """A configured restorer, bound to whatever model it needs.

    Deterministic in (picture, settings, model): its seeds are its own, and batch-mates change nothing.
    """

    @property
    def name(self) -> str:
        """``sr3`` or ``shared``."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """All that decides a restoration, as short texts: key of a cache, and what a head file compares.

        Holds ``opaque`` where part of it cannot be read; nothing may then be kept under this key.
        """
        ...

    def restore(self, images: Tensor, *, watch: Watch | None = None) -> Restored:
        """Restore pictures [N, 3, H, W] in [0, 1], in order, at their own size.

        Args:
            images: The pictures; one that holds NaN, or is smaller than the restorer can read, gets a reason.
            watch: Called with (denoiser calls done, calls in all); may raise to stop.

        Raises:
            BadInput: no pictures, or another shape.
        """
        ...
