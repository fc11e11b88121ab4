"""Pictures, and a small psi."""

import pytest
import torch
from torch import nn


@pytest.fixture
def pictures():
    """`pictures(n, h, w, dtype)` → smooth random pictures [n, 3, h, w]."""

    def build(n=3, h=16, w=24, dtype=torch.float32, seed=5):
        small = torch.rand(n, 3, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        return nn.functional.interpolate(small, (h, w), mode="bicubic").clamp(0, 1)

    return build


class GradientPsi:
    """A small differentiable psi in plain torch: first differences of the pixels, at two scales."""

    name, space, identity, networks, through_denoiser = "differences", "pixels", "differences", (), False

    def features(self, x):
        half = nn.functional.avg_pool2d(x, 2)
        return tuple(part for y in (x, half) for part in (y.diff(dim=2), y.diff(dim=3)))

    def distance(self, a, b, weight=None):
        return sum((x - y).square().flatten(1).mean(1) for x, y in zip(a, b, strict=True))


@pytest.fixture
def psi():
    return GradientPsi()
