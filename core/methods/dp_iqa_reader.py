"""DP-IQA's one forward: an image and the text sequence → the up blocks' features on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..backbone.contracts import Conditioning
from ..backbone.schedule import sigma_of_timestep
from ..nets.dp_iqa_decoder import to_grid
from ..taps.recorder import Grid, Recorder
from .dp_iqa_settings import RANGES

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.residuals import ResidualBackbone
    from .dp_iqa_head import DpHead
    from .dp_iqa_text import TextSequence


class MapReader:
    """Reads images with a head's settings; gradients flow to whatever adapters are given, if the host lets them.

    Args:
        backbone: The model.
        head: Taps, settings and grid.
        adapt: The image adapter: pixels → residuals; ``None`` for none.
    """

    def __init__(
        self, backbone: ResidualBackbone, head: DpHead, adapt: Callable[[Tensor], Sequence[Tensor]] | None
    ) -> None:
        family = backbone.family
        self.backbone, self.settings, self.adapt = backbone, head.settings, adapt
        self._taps = [tap for tap in family.taps if tap.name in head.taps]
        self._names, self._grid = head.taps, head.nets.shape.decoder.grid
        self._sigma = sigma_of_timestep(head.settings.timestep, family.prediction)
        # The published U-Net is given the latent as it is; hosts divide by this for eps- and v-models.
        self._gain = 1.0 if family.prediction == "flow" else (1.0 + self._sigma**2) ** 0.5

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] at the size that they are read at → latents, each picture by itself."""
        span, seed = RANGES[self.settings.value_range], self.settings.sample
        if seed is None:
            return self.backbone.encode(pixels, value_range=span)
        return torch.cat([self.backbone.encode(one[None], value_range=span, sample=seed) for one in pixels])

    def maps(
        self, latents: Tensor, pixels: Tensor | None, tokens: Tensor, sequence: TextSequence
    ) -> tuple[tuple[Tensor, ...], list[str]]:
        """One forward.

        Args:
            latents: [N, C, h, w].
            pixels: The same images [N, 3, H, W] for the image adapter; ``None`` leaves the adapter out.
            tokens: The adapted sequence [S, W].
            sequence: Where the pooled text lies.

        Returns:
            Maps [N, C, grid, grid] in the order of the up levels, and the taps that stayed silent (then no maps).
        """
        rows = len(latents)
        residuals = None if self.adapt is None or pixels is None else self.adapt(pixels)
        recorder = Recorder.of(self._taps, self._resized)
        pooled = None if sequence.pooled is None else sequence.pooled.expand(rows, -1)
        conditioning = Conditioning(tokens.expand(rows, -1, -1), pooled, ("",) * rows)
        sigma = torch.full((rows,), self._sigma, device=latents.device)
        self.backbone.features_beside(self._gain * latents, sigma, conditioning, recorder, residuals)
        silent = recorder.silent()
        if silent:
            return (), silent
        return tuple(torch.stack([record.value for record in recorder.rows(name)]) for name in self._names), []

    def _resized(self, values: Tensor, grid: Grid) -> Tensor:
        return to_grid(values, self._grid)
