"""Pictures → views → restorations → features of both branches, in one place for the scorer and for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ..images import finite_rows, reason_unscorable
from ..memory import in_chunks
from .diff_v2_iqa_settings import DiffSettings, View

if TYPE_CHECKING:
    from torch import Tensor

    from ..restoration.contract import Restorer
    from .contract import Watch

#: Shares of one chunk's restoration, in which progress is told.
HUNDREDTHS = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """One view's features.

    Attributes:
        maps: [2 · Σ maps, grid, grid], ``None`` without VCG.
        vector: [4, features], ``None`` without VDA.
        change: [grid, grid] mean |picture - restored| of each place, in [0, 1].
        calls: Of the denoiser, on this view; 0 where the restoration came out of a cache.
        noise_levels: Of d0, d1, d2.
        reason: Why there are no features.
    """

    maps: Tensor | None
    vector: Tensor | None
    change: Tensor
    calls: int
    noise_levels: tuple[float, float, float]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Views [N, 3, side, side], their d0, d1, d2 [N, 3, 3, side, side], and what :class:`Seen` tells of them."""

    given: Tensor
    images: Tensor
    calls: tuple[int, ...]
    noise_levels: tuple[float, float, float]
    reasons: tuple[str | None, ...]


class Reading:
    """Restores and looks.

    Args:
        restorer: Makes the three pictures.
        eyes: :class:`~..nets.diff_v2_eyes.DiffEyes`, or a host's stand-in for it.
        settings: How a picture is cut.
        device: Where the eyes are; a stand-in moves what it is given by itself.
        most_rows: Views restored together at most; halved on running out of memory.
    """

    def __init__(
        self,
        restorer: Restorer,
        eyes: Callable[[Tensor, Tensor], Any],
        settings: DiffSettings,
        device: torch.device | str = "cpu",
        most_rows: int = 4,
    ) -> None:
        self.restorer, self.eyes, self.settings = restorer, eyes, settings
        self.device, self.most_rows = device, most_rows
        #: Rows that went through the denoiser so far.
        self.calls = 0

    def views(self, image: Tensor) -> list[View] | str:
        """A picture's views, or the reason why it has none."""
        reason = reason_unscorable(image, self.settings.patch)
        if reason is not None:
            return reason
        try:
            return self.settings.cut(image)
        except ValueError as error:
            return str(error)

    def see(self, views: Sequence[View], watch: Watch | None = None) -> Iterator[Seen]:
        """Features of views, in order, computed when they are asked for: no more than a chunk of them is held.

        ``watch`` is called with (hundredths of views done, in all).
        """
        first = 0
        while first < len(views):
            last = min(len(views), first + self.most_rows)
            yield from self._held(views, first, last, watch)
            first = last

    def _held(self, views: Sequence[View], first: int, last: int, watch: Watch | None) -> list[Seen]:
        total = HUNDREDTHS * len(views)

        def work(begin: int, end: int) -> list[Seen]:
            at, count = HUNDREDTHS * (first + begin), HUNDREDTHS * (end - begin)

            def step(done: int, calls: int) -> None:
                if watch is not None:
                    watch(at + count * done // max(1, calls), total)

            return self._chunk([view.pixels for view in views[first + begin : first + end]], step)

        chunks, self.most_rows = in_chunks(last - first, self.most_rows, work)
        if watch is not None:
            watch(HUNDREDTHS * last, total)
        return [seen for chunk in chunks for seen in chunk]

    def _chunk(self, pictures: Sequence[Tensor], step: Callable[[int, int], None]) -> list[Seen]:
        found = self.restored(pictures, step)
        with torch.no_grad():
            maps, vectors = self.eyes(found.given, found.images)
            change = (found.given - found.images[:, 0]).abs().mean(1, keepdim=True)
            change = F.avg_pool2d(change, self.settings.patch)[:, 0].cpu()
        return [
            Seen(
                None if maps is None else maps[row].float(), None if vectors is None else vectors[row].float(),
                change[row], found.calls[row], found.noise_levels, reason,
            )
            for row, reason in enumerate(found.reasons)
        ]  # fmt: skip

    @torch.no_grad()
    def restored(self, pictures: Sequence[Tensor], step: Callable[[int, int], None] | None = None) -> Pictures:
        """Views [3, side, side] with their restorations."""
        given = torch.stack(list(pictures)).to(self.device)
        found = self.restorer.restore(given, watch=step)
        self.calls += sum(found.calls)
        images = found.images.to(given)
        finite = finite_rows(images)
        reasons = tuple(
            reason or (None if bool(whole) else "the restorer diverged: its pictures hold NaN or infinity")
            for reason, whole in zip(found.reasons, finite, strict=True)
        )
        # A row without a restoration is read as if nothing had changed, and gets its reason.
        if not bool(finite.all()):
            images = torch.where(finite.view(-1, 1, 1, 1, 1), images, given[:, None].expand_as(images))
        return Pictures(given, images.clamp(0.0, 1.0), found.calls, found.noise_levels, reasons)
