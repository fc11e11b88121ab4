"""The guided path: DDIM from a low noise level down to the clean latent, each clean estimate guided by the picture.

LGDM's perceptual manifold guidance (Saini, Liao, Ye, Bovik, 2025, arXiv 2506.00327), reimplemented after the paper,
not by its authors; ``step.py`` holds its sums. What the denoiser computes along the path are the hyperfeatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .door import check
from .result import GuidedPath, Watch
from .walk import Walk

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Backbone, Conditioning
    from ..perceptual.contract import Psi
    from ..taps.recorder import Recorder
    from .options import GuidanceOptions

__all__ = ["GuidedPath", "Watch", "guided_path"]


def guided_path(
    backbone: Backbone,
    clean: Tensor,
    target: Tensor | None,
    options: GuidanceOptions,
    psi: Psi | None,
    conditioning: Conditioning,
    recorder: Recorder | None = None,
    *,
    watch: Watch | None = None,
    weight: Tensor | None = None,
    keep_z: bool = True,
    keep_states: bool = False,
) -> GuidedPath:
    """Walk the guided path of every row; rows know nothing of each other.

    With both zetas 0 it is plain DDIM, and nothing is decoded. In a fresh recorder ``call`` k is level k, highest
    noise first.

    Args:
        backbone: The loaded model.
        clean: The pictures' latents [N, C, h, w].
        target: The pictures themselves [N, 3, H, W], H = stride · h; ``None`` takes the decoded latents when a term
            needs pixels.
        options: Settings.
        psi: The perceptual term's features; needed when zeta2 > 0.
        conditioning: N rows.
        recorder: Reads the denoiser on the way.
        watch: Called after every forward of the denoiser, after every term, and between chunks.
        weight: [N, 1, H, W] ≥ 0, how much each pixel counts in both terms.
        keep_z: Whether the final latents are wanted. Without them, and with a recorder, the last level's forward ends
            at its last tap, and the last level is not guided.
        keep_states: Whether the noised latents of every level are wanted.

    Raises:
        BadInput: shapes that do not fit each other or the model's stride, no psi, or no tiny autoencoder.
    """
    check(backbone, clean, target, options, psi, conditioning, weight)
    with torch.no_grad():
        walk = Walk(backbone, clean, options, conditioning, recorder, watch, keep_z, keep_states)
        walk.prepare(target, psi, weight)
        return walk.run()
