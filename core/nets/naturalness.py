"""How far a picture's small-scale statistics lie from those of clean pictures: NIQE's measure, no opinion of anybody.

After Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing
Letters 20 (2013): luminance is divided by its local contrast (MSCN), asymmetric generalised Gaussians are fitted to the
coefficients and to products of neighbours in patches at two scales, and the picture's multivariate Gaussian of those 36
features is compared with one of clean pictures. Reimplemented; the clean pictures are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadInput, UnreadableFile
from ..files import whole_file

PATCH = 96
#: Features of one patch: 18 at each of two scales.
FEATURES = 36
_WINDOW, _SIGMA = 7, 7.0 / 6.0
_LUMA = (0.299, 0.587, 0.114)
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: Patches of a clean picture that are sharper than this share of its sharpest one are fitted.
SHARP = 0.75
_RIDGE = 1e-3


def mscn(luma: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance [N, 1, H, W] in 0…255 → contrast-normalised coefficients, and local deviations, same shape."""
    at = torch.arange(_WINDOW, dtype=luma.dtype, device=luma.device) - _WINDOW // 2
    kernel = torch.exp(-(at**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()

    def blurred(values: Tensor) -> Tensor:
        padded = F.pad(values, (_WINDOW // 2,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))

    mean = blurred(luma)
    deviation = (blurred(luma.square()) - mean.square()).abs().sqrt()
    return (luma - mean) / (deviation + 1.0), deviation


def _table() -> tuple[Tensor, Tensor]:
    """Shapes α from 0.2 to 10 and r(α) = Γ(2/α)² / (Γ(1/α) Γ(3/α)), which rises."""
    alpha = torch.arange(0.2, 10.0, 0.001, dtype=torch.float64)
    ratio = torch.exp(2 * torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha))
    return alpha, ratio


def aggd(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows [n, m] → shape, left and right scale, and mean of an asymmetric generalised Gaussian, [n] each, fp64.

    By matched moments (Lasmar, Stitou and Berthoumieu, 2009).
    """
    x = values.double()
    tiny = 1e-12
    left, right = x < 0, x > 0
    below = ((x.square() * left).sum(1) / left.sum(1).clamp_min(1)).sqrt() + tiny
    above = ((x.square() * right).sum(1) / right.sum(1).clamp_min(1)).sqrt() + tiny
    ratio = below / above
    flat = x.abs().mean(1).square() / (x.square().mean(1) + tiny)
    wanted = flat * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1).square()
    alpha, known = _table()
    shape = alpha.to(x.device)[torch.searchsorted(known.to(x.device), wanted).clamp(max=len(alpha) - 1)]
    scale = torch.exp(0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)))
    below, above = below * scale, above * scale
    mean = (above - below) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
    return shape, below, above, mean


def _scale_features(rows: Tensor, across: int) -> Tensor:
    """MSCN patches [n, side, side] → [n, 18]."""
    shape, below, above, _ = aggd(rows.flatten(1))
    found = [shape, (below + above) / 2]
    for down, right in _SHIFTS:
        product = rows * torch.roll(rows, (-down, -right), dims=(1, 2))
        # What rolled in from the other side is no neighbour.
        product = product[:, : across - down, max(0, -right) : across - max(0, right)]
        shape, below, above, mean = aggd(product.flatten(1))
        found += [shape, mean, below.square(), above.square()]
    return torch.stack(found, dim=1)


def _patches(values: Tensor, side: int) -> Tensor:
    """[1, 1, H, W] → [n, side, side], row by row; what is left at the edges is dropped."""
    rows = values[0, 0].unfold(0, side, side).unfold(1, side, side)
    return rows.reshape(-1, side, side)


@torch.no_grad()
def patch_features(image: Tensor, patch: int = PATCH) -> tuple[Tensor, Tensor]:
    """A picture [3, H, W] in [0, 1] → its patches' features [n, 36], fp64, and their sharpness [n].

    Raises:
        BadInput: a picture smaller than one patch.
    """
    height, width = image.shape[1:]
    if min(height, width) < patch:
        raise BadInput(f"a picture of {patch}×{patch} px or more", f"{width}×{height}", "Leave it out.")
    image = image[:, : height // patch * patch, : width // patch * patch].double()
    luma = 255.0 * (image * image.new_tensor(_LUMA).view(3, 1, 1)).sum(dim=0)[None, None]
    found, sharp = [], torch.zeros(0)
    for scale in (1, 2):
        normal, deviation = mscn(luma)
        side = patch // scale
        found.append(_scale_features(_patches(normal, side), side))
        if scale == 1:
            sharp = _patches(deviation, side).mean(dim=(1, 2))
            luma = F.interpolate(luma, scale_factor=0.5, mode="bicubic", antialias=True)
    return torch.cat(found, dim=1), sharp


@dataclass(frozen=True, slots=True)
class Naturalness:
    """Clean pictures' Gaussian.

    Attributes:
        mean: [36].
        covariance: [36, 36].
        pictures: How many were fitted.
    """

    mean: Tensor
    covariance: Tensor
    pictures: int

    def distance(self, image: Tensor) -> float:
        """How unnatural a picture [3, H, W] in [0, 1] is: 0 and more, less is more natural.

        Raises:
            BadInput: a picture smaller than one patch.
        """
        features, _ = patch_features(image)
        mean = features.mean(dim=0)
        spread = torch.cov(features.T) if len(features) > 1 else torch.zeros_like(self.covariance)
        pooled = (self.covariance + spread) / 2
        apart = mean - self.mean
        return float((apart @ torch.linalg.pinv(pooled, hermitian=True) @ apart).clamp_min(0.0).sqrt())

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all; 6 kB."""
        with whole_file(path) as temporary:
            tensors = {"mean": self.mean.float(), "covariance": self.covariance.float().contiguous()}
            save_file(tensors, temporary, metadata={"pictures": str(self.pictures)})

    @classmethod
    def load(cls, path: str | Path) -> Naturalness:
        """Read what :meth:`save` wrote.

        Raises:
            UnreadableFile: missing, torn, or another file.
        """
        try:
            tensors = load_file(path)
            return cls(tensors["mean"].double(), tensors["covariance"].double(), 0)
        except (OSError, SafetensorError, KeyError) as error:
            remedy = "Make it with latent-critic train judge-study --clean DIR."
            raise UnreadableFile(f"statistics of clean pictures at {path}", str(error), remedy) from error


class CleanFit:
    """Gathers clean pictures one at a time: their sharp patches alone."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, image: Tensor) -> None:
        """One picture [3, H, W] in [0, 1].

        Raises:
            BadInput: a picture smaller than one patch.
        """
        features, sharp = patch_features(image)
        self._rows.append(features[sharp >= SHARP * sharp.max()])

    def done(self) -> Naturalness:
        """The Gaussian, its covariance kept from being singular.

        Raises:
            BadInput: fewer sharp patches than features.
        """
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, FEATURES)
        if len(rows) <= FEATURES:
            got = f"{len(rows)} of {len(self._rows)} pictures"
            raise BadInput(f"more than {FEATURES} sharp patches of clean pictures", got, "Add pictures.")
        covariance = torch.cov(rows.T)
        ridge = _RIDGE * torch.diag(covariance.diagonal())
        return Naturalness(rows.mean(dim=0), covariance + ridge, len(self._rows))
