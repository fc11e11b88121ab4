"""Taps of a diffusion transformer: hooks on its blocks while a forward runs, since no patch meets all of them."""

from __future__ import annotations

from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ...taps.recorder import Grid
from .tapping import Marked, Recording, Tapping, Unhook
from .transformer_taps import Block, TransformerTaps


class TransformerTapping(Tapping):
    """See :class:`.tapping.Tapping`."""

    def __init__(self, taps: TransformerTaps, latent_channels: int) -> None:
        super().__init__(taps.order, latent_channels)
        self._taps = taps
        # Each kind's own wrapper lies innermost, so that no other pack sees an early stop; SD3's network has none.
        self.wrapper = WrappersMP.DIFFUSION_MODEL if taps.wrapped else WrappersMP.APPLY_MODEL

    def _hooks(self, network: nn.Module, x: Tensor, text: Tensor | None, now: Recording) -> list[Unhook]:
        patch, multiple = self._taps.patch, self._taps.text_multiple
        grid = Grid(*(-(-side // patch) for side in x.shape[-2:]))
        tokens = 0 if text is None else text.shape[1]
        first = -(-tokens // multiple) * multiple  # where the image begins, behind the text
        own = slice(max(0, tokens - (now.tokens or tokens)), tokens)
        rows = slice(first, first + grid.h * grid.w)
        hooks: list[Unhook] = []
        for block in self._taps.blocks:
            if block.text.name in now.wanted and tokens:
                marked = Marked(block.text, grid, *((slice(None), own) if block.cross else (rows, own)))
                hooks.append(block.attention.register_forward_pre_hook(self._announce(marked)).remove)
            if block.feature.name in now.wanted:
                where = rows if block.joined else slice(0, grid.h * grid.w)
                hooks.append(block.module.register_forward_hook(self._read(block, where, grid, x)).remove)
        return hooks

    def _announce(self, marked: Marked) -> Any:
        def before(module: nn.Module, args: Any) -> None:
            if self._now is not None:
                self._now.marked = marked

        return before

    def _read(self, block: Block, where: slice, grid: Grid, x: Tensor) -> Any:
        frames = x.shape[2] if x.ndim == 5 else 1

        def after(module: nn.Module, args: Any, out: Any) -> None:
            if frames > 1:
                return  # a video has no one grid: the tap stays silent, and the recorder says so
            values = (out if block.image is None else out[block.image])[:, where]
            self._feature(block.feature, values.transpose(1, 2).unflatten(-1, (grid.h, grid.w)))

        return after
