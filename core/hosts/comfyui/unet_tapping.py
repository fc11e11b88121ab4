"""Taps of a U-Net: ComfyUI's patches meet all of them but the last output block's value, which takes a hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...taps.recorder import Grid
from .tapping import Marked, Recording, Tapping, Unhook, place_of
from .unet_taps import UNetTaps


class UNetTapping(Tapping):
    """See :class:`.tapping.Tapping`."""

    def __init__(self, taps: UNetTaps, latent_channels: int) -> None:
        super().__init__(taps.order, latent_channels)
        self._taps = taps

    def _patch(self, patcher: Any, *, attention: bool) -> None:
        if attention:
            patcher.set_model_attn2_patch(self._mark)
        # First in line, so that a feature is the block's own output and not what FreeU and its like make of it.
        patches = patcher.model_options["transformer_options"].setdefault("patches", {})
        patches.setdefault("output_block_patch", []).insert(0, self._output_block)

    def _hooks(self, network: nn.Module, x: Tensor, text: Tensor | None, now: Recording) -> list[Unhook]:
        unet: Any = network
        tap = self._taps.features.get(len(unet.output_blocks))
        if tap is None or tap.name not in now.wanted:
            return []
        return [unet.out.register_forward_pre_hook(lambda module, args: self._feature(tap, args[0])).remove]

    def _output_block(self, h: Tensor, hsp: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Before output block i joins its skip: ``h`` is what block i-1 gave."""
        tap = self._taps.features.get(options["block"][1])
        if tap is not None:
            self._feature(tap, h)
        return h, hsp

    def _mark(
        self, n: Tensor, context: Tensor, value: Tensor, options: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Just before a cross-attention: the next attention call of this place is it."""
        if self._now is not None:
            place = place_of(options)
            tap = None if place is None else self._taps.attention.get(place)
            wanted = tap is not None and tap.name in self._now.wanted
            grid = Grid(*options["activations_shape"][-2:])
            self._now.marked = Marked(tap, grid, place=place) if tap is not None and wanted else None
        return n, context, value
