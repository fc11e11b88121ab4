"""A backbone without a network: features that show how much a picture was damaged, behind the real extraction."""

import pytest
import torch
from latent_critic.core.backbone.contracts import Conditioning, Family, Tap
from latent_critic.core.backbone.fingerprint import Fingerprint
from latent_critic.core.guidance.options import GuidanceOptions
from latent_critic.core.methods.hyperfeature_options import HyperfeatureOptions
from latent_critic.core.methods.hyperfeatures import Hyperfeatures
from latent_critic.core.taps.recorder import Grid, Key, Record
from torch.nn import functional as F

TAPS = (Tap("mid", "feature", 8, 2), Tap("up.0", "feature", 8, 2), Tap("up.1", "feature", 12, 1))


class FilterBackbone:
    """Fixed random filters over a latent that keeps 8×8 pixel blocks' energy; it can be read, not guided."""

    def __init__(self):
        draw = torch.Generator().manual_seed(0)
        self.filters = {tap.name: torch.randn(tap.channels, 4, 3, 3, generator=draw) for tap in TAPS}
        self.family = Family("tiny", "eps", 4, 8, 64, "none", TAPS)
        self.fingerprint = Fingerprint("tiny", (0.5, -0.5))
        self.identity = {"model": "plain"}
        self.encoded = 0

    def encode(self, pixels, *, value_range=(-1.0, 1.0), sample=None):
        self.encoded += len(pixels)
        edges = pixels.diff(dim=3, append=pixels[..., -1:]).abs().mean(1, keepdim=True)
        return F.avg_pool2d(torch.cat([pixels, edges], 1), 8)

    def embed(self, prompts):
        return Conditioning(torch.zeros(len(prompts), 1, 1), None, tuple(prompts))

    def features(self, z_t, sigma, conditioning, recorder):
        for name, request in recorder.wanted(TAPS).items():
            stride = next(tap.stride for tap in TAPS if tap.name == name)
            maps = F.conv2d(F.avg_pool2d(z_t, stride), self.filters[name], padding=1).tanh()
            grid = Grid(*maps.shape[-2:])
            for row, value in enumerate(request.reducer(maps, grid)):
                recorder.put(Record(Key(name, recorder.calls, "cond", row), float(sigma[row]), grid, value))
        recorder.calls += 1

    def denoise(self, z_t, sigma, conditioning, recorder=None):
        if recorder is not None:
            self.features(z_t, sigma, conditioning, recorder)
        return 0.9 * z_t

    def noise(self, shape, seed):
        return 0.05 * torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))

    def rows_that_fit(self, latent_shape, *, backward=False):
        return 100


@pytest.fixture
def backbone():
    return FilterBackbone()


@pytest.fixture
def options():
    """Quick settings: two levels, nothing guided."""
    guidance = GuidanceOptions(timesteps=(60, 20), zeta1=0.0, zeta2=0.0)
    return HyperfeatureOptions("single_level", guidance, psi=None, views=("whole",))


@pytest.fixture
def features(backbone, options):
    return Hyperfeatures(backbone, options)


@pytest.fixture
def noisy():
    """`noisy(n)`: pictures of growing noise, and ratings that fall with it."""

    def build(count, seed=0):
        draw = torch.Generator().manual_seed(seed)
        found = []
        for place in range(count):
            clean = F.interpolate(torch.rand(1, 3, 5, 5, generator=draw), (64, 64), mode="bicubic")[0]
            noise = torch.randn(clean.shape, generator=draw) * 0.3 * place / count
            found.append((clean + noise).clamp(0.0, 1.0))
        return found, [95.0 - 90.0 * place / count for place in range(count)]

    return build
