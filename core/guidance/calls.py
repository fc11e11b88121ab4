"""What a guided path costs, counted where it is spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Calls:
    """Calls over a whole batch of rows, or over one chunk of them where memory made chunks.

    Attributes:
        denoiser: Forwards of the denoiser along the path: one per level, and those of a DDIM inversion.
        denoiser_backward: Backwards through it, when gradients pass through the denoiser.
        decoder: Decoder forwards: one per active pixel term and level, and one for a target that was not given.
        decoder_backward: Decoder backwards.
        psi: Forwards of psi: one for the reference, then one per level.
        psi_backward: Backwards through psi.
    """

    denoiser: int = 0
    denoiser_backward: int = 0
    decoder: int = 0
    decoder_backward: int = 0
    psi: int = 0
    psi_backward: int = 0
