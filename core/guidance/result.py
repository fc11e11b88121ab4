"""What a guided path gives, and who is told of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from .calls import Calls

#: Called with (steps done, steps in all); it may raise to stop the run.
Watch: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class GuidedPath:
    """What a guided path gave.

    Attributes:
        z: The guided clean latents [N, C, h, w]; ``None`` when they were not asked for. A row with a reason holds its
            input latent.
        energies: By active term (``measurement``, ``perceptual``) the squared energies [levels, N] on the CPU, each
            before the term's own step; 0 for a row from where it was given up. Without z the last level has none.
        calls: What it cost.
        reasons: Why a row's values mean nothing, or ``None``.
        sigmas: The noise levels, highest first, in the family's convention.
        tile: Side in latent cells of the tiles that too little memory forced on a picture: its guidance is then an
            approximation. ``None``, as a rule, for whole pictures.
        peak_memory: The most bytes that tensors held on the device while the path ran; ``None`` on a CPU.
        states: The noised latents z_t [N, C, h, w] that each level began with, highest noise first, where they were
            asked for.
    """

    z: Tensor | None
    energies: dict[str, Tensor]
    calls: Calls
    reasons: tuple[str | None, ...]
    sigmas: tuple[float, ...]
    tile: int | None
    peak_memory: int | None
    states: tuple[Tensor, ...] = ()
