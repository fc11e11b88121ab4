"""Restoration in pixel space by a conditional DDPM, in tiles where a picture is large.

After DiffV2IQA's restorer, SR3's kind of model (Wang et al., 2024, arXiv 2402.14401; Saharia et al., 2021, arXiv
2104.07636), reimplemented, not by their authors: 50 ancestral steps of a cosine schedule as published, fewer as an
option. Ours: the same noise for every picture of one size, so that neither order nor company matters.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..errors import BadInput
from ..memory import in_chunks, is_out_of_memory
from ..nets.restorer import RestorerNet
from .contract import Restored, Watch
from .door import checked, kept_rows
from .schedule import Level, ddim, inference_levels
from .tiles import Tile, feathered, place_tiles
from .weights import RestorerFacts, digest, load_restorer

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)
#: The narrow restorer that comes with the package.
SHIPPED = Path(__file__).parents[1] / "assets" / "restorer" / "restorer.safetensors"
#: Pixels of one forward at most, over all rows; memory may make it fewer.
_PIXELS = 16 * 256 * 256
#: A clean estimate beyond this many times the range of pixels is no picture any more.
_DIVERGED = 4.0
_NOT_FINITE = "the restorer's output held NaN or infinite values (half precision overflowed: try fp32)"
#: Pixels a side of tiles at least.
_SMALLEST = 16
_TOO_LITTLE = "out of memory: not even the smallest tile of it can be restored (close other programs, or use the CPU)"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Sr3Options:
    """Settings of a restoration.

    Attributes:
        steps: Denoiser calls, 4 to 50 (published: 50).
        eta: 1: ancestral sampling as published. 0: DDIM, which few steps need.
        seed: Of the first noise and, with eta, of every step's.
        tile: Side in pixels beyond which a picture is restored in tiles.
        overlap: Pixels that neighbouring tiles share at least.
    """

    steps: int = 50
    eta: float = 1.0
    seed: int = 0
    tile: int = 512
    overlap: int = 64

    def __post_init__(self) -> None:
        inference_levels(self.steps)
        if not 0.0 <= self.eta <= 1.0:
            raise BadInput("eta from 0 to 1", str(self.eta), "1 is ancestral sampling as published, 0 DDIM.")
        if self.overlap < 0 or self.tile < 2 * self.overlap or self.tile < _SMALLEST:
            got = f"tile {self.tile}, overlap {self.overlap}"
            raise BadInput("tiles from 16 pixels, twice the overlap or more", got, "The default is 512 and 64.")


class Sr3Restorer:
    """A :class:`~.contract.Restorer` of its own network.

    Args:
        net: The network, on the device to work on, in the precision to work in.
        options: Settings.

    Raises:
        BadInput: tiles that the network's stride does not divide.
    """

    name = "sr3"

    def __init__(self, net: RestorerNet, options: Sr3Options | None = None) -> None:
        self.options = options if options is not None else Sr3Options()
        self._net = net.eval()
        stride = net.shape.stride
        if self.options.tile % stride or self.options.overlap % stride:
            got = f"tile {self.options.tile}, overlap {self.options.overlap}"
            raise BadInput(f"tile and overlap divisible by {stride}", got, "The default is 512 and 64.")
        self._digest = digest(net)

    @property
    def identity(self) -> Mapping[str, str]:
        """Weights, settings and precision."""
        weight = self._net.first.weight
        return {
            "restorer": f"{self.name} {_VERSION}",
            "weights": self._digest,
            "settings": json.dumps(asdict(self.options), sort_keys=True),
            "precision": str(weight.dtype).removeprefix("torch."),
        }

    def restore(self, images: Tensor, *, watch: Watch | None = None) -> Restored:
        """See :meth:`.contract.Restorer.restore`; pictures from 8 pixels along the shorter side."""
        pictures, reasons = checked(images)
        weight = self._net.first.weight
        with torch.no_grad():
            made = self._within_memory(2.0 * pictures.to(weight.device) - 1.0, reasons, watch)
        if made is None:
            told = tuple(reason or _TOO_LITTLE for reason in reasons)
            unchanged = pictures[:, None].expand(-1, 3, -1, -1, -1).contiguous()
            return Restored(unchanged, _kept_noise(self.options.steps), (0,) * len(pictures), told)
        states, calls, reasons = made
        found = torch.stack(states, 1).mul_(0.5).add_(0.5).clamp_(0.0, 1.0).to(pictures.device)
        levels = _kept_noise(self.options.steps)
        return Restored(kept_rows(found, pictures, reasons), levels, (calls,) * len(pictures), tuple(reasons))

    def _within_memory(
        self, images: Tensor, reasons: list[str | None], watch: Watch | None
    ) -> tuple[list[Tensor], int, list[str | None]] | None:
        """d0, d1, d2, calls of each picture, reasons; ``None`` where not even the smallest tiles fit.

        Rows are halved within a run. Where one tile of one row is too much, all begins again in tiles of half the side.
        """
        tile: int | None = self.options.tile
        while tile is not None:
            told = list(reasons)
            path = _Path(self._net, replace(self.options, tile=tile), images, told, watch)
            states = _tried(path)
            if states is not None:
                return states, path.calls, told
            tile = self._smaller(min(tile, max(images.shape[-2:])))
            if tile is not None:
                _log.warning("Out of memory with one tile of one picture; beginning again with tiles of %d px.", tile)
        return None

    def _smaller(self, tile: int) -> int | None:
        """Half of a tile's side; ``None`` below twice the overlap, where tiles would no more fade into each other."""
        stride = self._net.shape.stride
        half = tile // 2 // stride * stride
        return half if half >= max(_SMALLEST, 2 * self.options.overlap) else None


def _tried(path: _Path) -> list[Tensor] | None:
    """What a run gives, or ``None`` where memory ran out; by then the error keeps no tensors alive."""
    try:
        return path.run()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _kept_noise(steps: int) -> tuple[float, float, float]:
    """Noise levels of d0, d1, d2."""
    d0, d1, d2 = sorted(level.noise for level in inference_levels(steps) if level.kept is not None)
    return d0, d1, d2


class _Path:
    """One run over pictures [N, 3, H, W] in [-1, 1] of one size."""

    def __init__(
        self, net: RestorerNet, options: Sr3Options, images: Tensor, reasons: list[str | None], watch: Watch | None
    ) -> None:
        self._net, self._options, self._reasons, self._watch = net, options, reasons, watch
        self._height, self._width = images.shape[-2:]
        stride = net.shape.stride
        down, right = -self._height % stride, -self._width % stride
        self._condition = F.pad(images, (0, right, 0, down), mode="replicate") if right or down else images
        height, width = self._condition.shape[-2:]
        self._tiles = place_tiles(height, width, options.tile, options.overlap, stride)
        self._levels = inference_levels(options.steps)
        #: Of each picture.
        self.calls = len(self._levels) * len(self._tiles)
        self._done, self._units = 0, self.calls * len(images)
        pixels = (self._tiles[0].bottom - self._tiles[0].top) * (self._tiles[0].right - self._tiles[0].left)
        self._rows = max(1, _PIXELS // pixels)

    def run(self) -> list[Tensor]:
        """d0, d1, d2, each [N, 3, H, W], not clamped."""
        x = self._noise(0).expand_as(self._condition)
        kept: dict[int, Tensor] = {}
        for place, level in enumerate(self._levels):
            if level.kept:
                kept[level.kept] = x
            raw = feathered(
                x, self._tiles, self._options.overlap, lambda tile, x=x, level=level: self._part(x, level, tile)
            )
            x0 = (raw if self._check(raw, level) else torch.nan_to_num(raw)).clamp(-1.0, 1.0)
            after = self._levels[place + 1] if place + 1 < len(self._levels) else None
            fresh = self._noise(1 + place) if self._options.eta and after is not None else None
            x = ddim(x, x0, level, after, self._options.eta, fresh)
        return [state[..., : self._height, : self._width] for state in (x, kept[1], kept[2])]

    def _noise(self, number: int) -> Tensor:
        """One row, drawn on the CPU so that every device draws the same."""
        generator = torch.Generator().manual_seed(self._options.seed * 1_000_003 + number)
        return torch.randn((1, *self._condition.shape[1:]), generator=generator).to(self._condition.device)

    def _part(self, x: Tensor, level: Level, tile: Tile) -> Tensor:
        """The clean estimate of one tile of all rows, as many at a time as fit."""
        dtype = self._net.first.weight.dtype
        condition, noisy = tile.take(self._condition), tile.take(x)

        def work(first: int, last: int) -> Tensor:
            signal = torch.full((last - first,), level.signal, device=x.device)
            told = self._net.clean(condition[first:last].to(dtype), noisy[first:last].to(dtype), signal)
            self._done += last - first
            if self._watch is not None:
                self._watch(self._done, self._units)
            return told.float()

        parts, self._rows = in_chunks(len(x), self._rows, work)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _check(self, raw: Tensor, level: Level) -> bool:
        """Give up rows that are not finite, or far off where little noise is left to blame; whether all are near."""
        flat = raw.flatten(1)
        reach = torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5
        if bool((reach <= _DIVERGED).all()):  # neither NaN nor infinity is
            return True
        finite = flat.isfinite().all(1)
        for row, reason in enumerate(self._reasons):
            if reason is None and not finite[row]:
                self._reasons[row] = _NOT_FINITE
            elif reason is None and level.kept is not None and reach[row] > _DIVERGED:
                self._reasons[row] = (
                    f"the restorer diverged: at noise {level.noise:.2f} its estimate reaches "
                    f"{float(reach[row]):.3g} times the range of pixels"
                )
        return False


def load_sr3(
    path: str | Path = SHIPPED, options: Sr3Options | None = None, device: torch.device | str = "cpu"
) -> Sr3Restorer:
    """A restorer out of a file; without options with the file's own steps and eta.

    Raises:
        UnreadableFile: missing, torn, or no restorer.
    """
    net, facts = load_restorer(path)
    return Sr3Restorer(net.to(device), options if options is not None else usual_options(facts))


def usual_options(facts: RestorerFacts) -> Sr3Options:
    """The settings that go with a file."""
    return Sr3Options(steps=facts.steps, eta=facts.eta)
