"""A DP-IQA head's networks where the host has put them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..memory import in_chunks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .dp_iqa_head import DpNets
    from .dp_iqa_text import TextSequence


@dataclass(slots=True)
class Placed:
    """Networks, and the adapted text once it is computed.

    Attributes:
        text, image: Adapters, ``None`` where the head has none.
        decoder: Maps → score and quality map.
        tokens: Of the adapted sequence.
        sequence: As the text encoder gave it.
    """

    text: Callable[..., Any] | None
    image: Callable[..., Any] | None
    decoder: Callable[..., Any]
    tokens: Tensor | None = None
    sequence: TextSequence | None = None


def placed(
    nets: DpNets, device: torch.device, place: Callable[[nn.Module], Callable[..., Any]] | None = None
) -> Placed:
    """Every network placed by the host, or left on this device."""
    put = place or _on(device)
    return Placed(
        None if nets.text_adapter is None else put(nets.text_adapter),
        None if nets.img_adapter is None else _halving(put(nets.img_adapter)),
        _halving(put(nets.QFD)),
    )


def _halving(network: Callable[..., Any]) -> Callable[..., Any]:
    """A network of several outputs with the same rows as its inputs; out of memory, it is given half of them."""

    def run(*given: Tensor) -> Sequence[Tensor]:
        rows = len(given[0])
        parts, _ = in_chunks(rows, rows, lambda first, last: network(*(one[first:last] for one in given)))
        return parts[0] if len(parts) == 1 else [torch.cat(one) for one in zip(*parts, strict=True)]

    return run


def _on(device: torch.device) -> Callable[[nn.Module], Callable[..., Any]]:
    def put(network: nn.Module) -> Callable[..., Any]:
        network.to(device)
        return lambda *given: network(*(one.to(device) for one in given))

    return put
