"""From drawn pictures to DP-IQA scores that carry gradients to the adapters and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import BadInput
from ..images import load_image
from ..methods.dp_iqa_reader import MapReader
from ..methods.native_size import to_native
from .dp_iqa_data import Drawn
from .dp_iqa_maps import MapCache

if TYPE_CHECKING:
    from ..backbone.residuals import ResidualBackbone
    from ..methods.dp_iqa_head import DpHead, DpNets
    from ..methods.dp_iqa_text import TextSequence


class Forward:
    """Pictures → scores in units of 1, 0 worst to 1 best.

    Args:
        backbone: Whose forwards carry gradients.
        head: Settings and taps; its networks are what is trained.
        sequence: The text, before its adapter.
        rows: Pictures in one forward.
        again: Gradient checkpointing: keep nothing of a forward but its inputs, and compute it again.
        drop: Share of the flattened map dropped.
        cache: Features, where no adapter changes them.
    """

    def __init__(
        self,
        backbone: ResidualBackbone,
        head: DpHead,
        sequence: TextSequence,
        *,
        rows: int = 4,
        again: bool = False,
        drop: float = 0.0,
        cache: MapCache | None = None,
    ) -> None:
        self._backbone, self._head, self._sequence = backbone, head, sequence
        self._rows, self._again, self._drop, self.cache = rows, again, drop, cache
        self._reader = MapReader(backbone, head, head.nets.img_adapter)
        self._device = backbone.noise((1,), 0).device

    def with_head(self, head: DpHead) -> Forward:
        """The same for other weights of the same shape."""
        return Forward(
            self._backbone, head, self._sequence, rows=self._rows, again=self._again, drop=self._drop, cache=self.cache
        )  # fmt: skip

    @property
    def nets(self) -> DpNets:
        """What is trained."""
        return self._head.nets

    def scores(self, drawn: Sequence[Drawn]) -> Tensor:
        """[N] scores of these pictures, on the device."""
        with drop_before_fc(self.nets, self._drop):
            parts = [self._part(drawn[i : i + self._rows]) for i in range(0, len(drawn), self._rows)]
        return torch.cat(parts)

    def _part(self, drawn: Sequence[Drawn]) -> Tensor:
        if self.cache is not None:
            return self.nets.QFD(*self._kept(drawn))[0]
        groups: dict[tuple[int, int], list[int]] = {}
        pixels = [self._pixels(one) for one in drawn]
        for place, image in enumerate(pixels):
            groups.setdefault((image.shape[1], image.shape[2]), []).append(place)
        found: dict[int, Tensor] = {}
        for places in groups.values():
            stacked = torch.stack([pixels[place] for place in places]).to(self._device)
            with torch.no_grad():
                latents = self._reader.encode(stacked)
            found.update(zip(places, self._kept_or_again(latents, stacked), strict=True))
        return torch.stack([found[place] for place in range(len(drawn))])

    def _kept(self, drawn: Sequence[Drawn]) -> list[Tensor]:
        assert self.cache is not None
        maps = self.cache.read([one.image.path for one in drawn], [one.mirrored for one in drawn])
        return [values.to(self._device) for values in maps]

    def statistics(self, drawn: Sequence[Drawn]) -> tuple[list[Tensor], list[Tensor]]:
        """Mean and deviation of every channel of every level over some pictures, before training."""
        sums: list[Tensor] = []
        squares: list[Tensor] = []
        with torch.no_grad():
            for one in drawn:
                maps = self._kept([one]) if self.cache is not None else self._maps_of(one)
                means = [values.double().mean(dim=(0, 2, 3)) for values in maps]
                second = [values.double().square().mean(dim=(0, 2, 3)) for values in maps]
                sums = [a + b for a, b in zip(sums, means, strict=True)] if sums else means
                squares = [a + b for a, b in zip(squares, second, strict=True)] if squares else second
        means = [total / len(drawn) for total in sums]
        pairs = zip(squares, means, strict=True)
        return means, [(total / len(drawn) - mean.square()).clamp_min(0.0).sqrt() for total, mean in pairs]

    def _maps_of(self, one: Drawn) -> Sequence[Tensor]:
        pixels = self._pixels(one)[None].to(self._device)
        return self._maps(self._reader.encode(pixels), pixels)

    def _kept_or_again(self, latents: Tensor, pixels: Tensor) -> Tensor:
        if self._again and torch.is_grad_enabled():
            found = checkpoint(self._one_forward, latents, pixels, use_reentrant=False)
            assert isinstance(found, Tensor)
            return found
        return self._one_forward(latents, pixels)

    def _one_forward(self, latents: Tensor, pixels: Tensor) -> Tensor:
        return self.nets.QFD(*self._maps(latents, pixels))[0]

    def _maps(self, latents: Tensor, pixels: Tensor) -> Sequence[Tensor]:
        tokens = self._sequence.tokens.to(self._device)
        adapted = tokens if self.nets.text_adapter is None else self.nets.text_adapter(tokens)
        maps, silent = self._reader.maps(latents, pixels, adapted, self._sequence)
        if silent:
            raise BadInput("features of every up level", f"none of {', '.join(silent)}", "Train on the plain model.")
        return maps

    def _pixels(self, one: Drawn) -> Tensor:
        image = load_image(one.image.path)
        found = to_native(image, self._head.settings.shape(image.shape[1], image.shape[2], self._backbone.family))
        return found.flip(-1) if one.mirrored else found


class drop_before_fc:  # noqa: N801 (a context, used like a function)
    """Drop a share of the flattened map while a block runs in training mode."""

    def __init__(self, nets: DpNets, share: float) -> None:
        self._nets, self._share, self._hook = nets, share, None

    def __enter__(self) -> None:
        if self._share and self._nets.training:
            layer = self._nets.QFD.fc1
            self._hook = layer.register_forward_pre_hook(lambda _, given: (F.dropout(given[0], self._share),))

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()
