"""Clean estimates moved down the energies, chunk by chunk, each row by itself; rows that diverge are given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch

from .step import move, root_mean_square
from .tiles import tiles

if TYPE_CHECKING:
    from torch import Tensor

    from .options import GuidanceOptions
    from .terms import Term
    from .tiles import Tile

#: A step that leaves a latent this many times as large as the picture's own has diverged.
_RANGE = 10.0

#: A gradient at the clean estimate → the gradient to follow: itself, or pulled back through the denoiser.
PullBack: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(slots=True)
class Rows:
    """What is known of each row while a path runs.

    Attributes:
        reasons: Why a row was given up, or ``None``.
        energies: By term, for each level, the energy of every row before the term's step; 0 for a row given up.
    """

    reasons: list[str | None]
    energies: dict[str, list[list[float]]] = field(default_factory=dict)

    def next_level(self) -> None:
        """Make room for the energies of one more level."""
        for levels in self.energies.values():
            levels.append([0.0] * len(self.reasons))

    def give_up(self, bad: Tensor, reason: str, first: int = 0) -> None:
        """Give a reason to the rows (from ``first`` on) that are marked and have none yet."""
        for place in bad.nonzero().flatten().tolist():
            if self.reasons[first + place] is None:
                self.reasons[first + place] = reason

    def alive(self, first: int, last: int, like: Tensor) -> Tensor:
        """Mask [n] of these rows' living, on the device of ``like``."""
        return torch.tensor([reason is None for reason in self.reasons[first:last]], device=like.device)

    def note(self, term: Term, first: int, energies: Sequence[float], growth: float) -> None:
        """Keep the energies of living rows; one above ``growth`` times its first level's ends its row."""
        levels = self.energies[term.name]
        for row, energy in enumerate(energies, first):
            if self.reasons[row] is not None:
                continue
            if energy > growth * max(levels[0][row], term.floor) and len(levels) > 1:
                self.reasons[row] = f"guidance diverged: the {term.name} energy grew beyond {growth:g} times its first"
            else:
                levels[-1][row] = energy


def keep(mask: Tensor, values: Tensor, instead: Tensor) -> Tensor:
    """Rows of ``values`` where the mask [N] holds, rows of ``instead`` elsewhere."""
    return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), values, instead)


def energy_and_gradient(term: Term, z: Tensor, rows: slice, side: int | None = None) -> tuple[Tensor, Tensor]:
    """A term at these clean estimates: squared energies [n] and their gradients, like ``z``. In a gradient context.

    Args:
        term: The energy.
        z: [n, C, h, w].
        rows: Which rows of the batch they are.
        side: Work in tiles of so many cells; ``None`` for the whole at once.
    """
    if side is None:
        return _backward(term, z, rows, None)
    energy, gradient = z.new_zeros(len(z)), torch.zeros_like(z)
    for tile in tiles(z.shape[-2], z.shape[-1], side):
        part, slope = _backward(term, tile.take_outer(z), rows, tile)
        energy += part
        tile.take_outer(gradient).add_(slope)
    return energy, gradient


def _backward(term: Term, z: Tensor, rows: slice, tile: Tile | None) -> tuple[Tensor, Tensor]:
    leaf = z.detach().clone().requires_grad_(True)
    energy = term.energy(leaf, rows, tile)
    (gradient,) = torch.autograd.grad(energy.sum(), leaf)
    term.went_back()
    return energy.detach().to(z), gradient


def descend(
    x0: Tensor,
    clean: Tensor,
    terms: Sequence[Term],
    options: GuidanceOptions,
    rows: Rows,
    first: int,
    pull_back: PullBack | None = None,
    side: int | None = None,
    cells: Tensor | None = None,
) -> Tensor:
    """One chunk through all terms: z0|t [n, C, h, w] → z''. In a gradient context.

    Args:
        x0: Clean estimates, finite.
        clean: What a row that is given up stays at.
        terms: In order.
        options: Settings.
        rows: Reasons and energies; both are added to.
        first: The chunk's first row.
        pull_back: Takes the gradient through the denoiser.
        side: Work in tiles of so many cells.
        cells: [n, 1, h, w], how much each cell counts; all alike when left out.
    """
    place = slice(first, first + len(x0))
    largest = _RANGE * root_mean_square(clean).clamp_min(1.0)
    z = x0
    for term in terms:
        energy, gradient = energy_and_gradient(term, z, place, side)
        gradient = gradient if pull_back is None else pull_back(gradient)
        finite = energy.isfinite() & gradient.flatten(1).isfinite().all(1)
        rows.give_up(~finite, f"guidance diverged: the {term.name} term's energy or gradient is not finite", first)
        rows.note(term, first, energy.tolist(), options.growth)
        z = move(z, gradient, energy, term.zeta, normalised=options.normalised, squared=options.squared, cells=cells)
        small = root_mean_square(z) <= largest  # False for NaN too
        rows.give_up(~small, f"guidance diverged: the {term.name} term's step left the range of latents", first)
        z = keep(rows.alive(place.start, place.stop, z), z, clean)
    return z
