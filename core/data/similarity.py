"""How near a damaged form is to its picture: PSNR, and SSIM by scikit-image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MissingDependency

if TYPE_CHECKING:
    from torch import Tensor

#: The least fall of structural similarity for which a step of damage counts as seen.
VISIBLE = 0.02


def psnr(originals: Tensor, found: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures [N, 3, H, W] in [0, 1], float64 [N]; at most 100, for equal ones."""
    errors = (originals.double() - found.double()).square().flatten(1).mean(1)
    return -10.0 * errors.clamp_min(1e-10).log10()


def ssim(original: Tensor, damaged: Tensor) -> float:
    """Structural similarity of two pictures [3, H, W] in [0, 1]; 1 for equal ones.

    Raises:
        MissingDependency: scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        remedy = "pip install 'latent-critic[demo]'"
        raise MissingDependency("scikit-image for structural similarity", "no module skimage", remedy) from error
    return float(structural_similarity(original.numpy(), damaged.numpy(), channel_axis=0, data_range=1.0))  # type: ignore[no-untyped-call]
