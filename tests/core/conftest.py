"""A tiny real denoiser and decoder in plain torch behind the backbone contract, in any dtype; it counts its calls."""

import contextlib

import pytest
import torch
from latent_critic.core.backbone.contracts import Conditioning, Family, Tap
from latent_critic.core.backbone.fingerprint import Fingerprint
from latent_critic.core.taps.recorder import Grid, Key, Record
from torch import nn

WIDTH = 8
TAPS = (Tap("mid", "feature", WIDTH, 1), Tap("up.0", "feature", WIDTH, 1))


class Denoiser(nn.Module):
    """A few smooth layers from noised latents to eps, v or a flow's velocity; text shifts them."""

    def __init__(self):
        super().__init__()
        self.inside, self.middle, self.outside = (
            nn.Conv2d(4, WIDTH, 3, padding=1),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.Conv2d(WIDTH, 4, 3, padding=1),
        )
        self.level, self.text = nn.Linear(1, WIDTH), nn.Linear(5, WIDTH)

    def forward(self, x, sigma, tokens, seen):
        h = self.inside(x) + (self.level(sigma[:, None]) + self.text(tokens.mean(1)))[:, :, None, None]
        h = torch.tanh(h)
        seen("mid", h)
        h = h + torch.tanh(self.middle(h))
        seen("up.0", h)
        return self.outside(h)


class Enough(Exception):
    pass


class Backbone:
    """Stride 2, four latent channels. ``spoil(row, sigma)`` may say what to do to a row's estimate."""

    has_tiny_decoder = False

    def __init__(self, prediction="eps", dtype=torch.float32, fit=1000, tiny=False):
        torch.manual_seed(0)
        self.unet = Denoiser().to(dtype)
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)
        ).to(dtype)
        self.tiny = nn.Sequential(nn.Conv2d(4, 12, 1), nn.PixelShuffle(2)).to(dtype)
        self.dtype, self.fit, self.has_tiny_decoder, self.prediction = dtype, fit, tiny, prediction
        self.family = Family("tiny", prediction, 4, 2, 32, "none", TAPS)
        self.fingerprint, self.identity = Fingerprint("tiny", (0.5, -0.5)), {"model": "plain"}
        self.calls = {"denoise": 0, "features": 0, "decode": 0, "tiny": 0}
        self.rows, self.spoil, self.out_of_memory_above = [], None, 1000
        self.within = 0
        for part in (self.unet, self.decoder, self.tiny):
            part.requires_grad_(False)

    def encode(self, pixels, *, value_range=(-1.0, 1.0), sample=None):
        low = nn.functional.avg_pool2d(pixels * 2 - 1, 2)
        return torch.cat([low, low.mean(1, keepdim=True)], 1).to(self.dtype)

    def decode(self, latents, *, differentiable=False, tiny=False):
        assert bool(self.within) == differentiable, "a differentiable decode lies inside gradients()"
        self.calls["tiny" if tiny else "decode"] += 1
        self.rows.append(len(latents))
        if differentiable and len(latents) > self.out_of_memory_above:
            raise RuntimeError("out of memory")
        return torch.sigmoid((self.tiny if tiny else self.decoder)(latents))

    @contextlib.contextmanager
    def gradients(self, *, decoder=True, denoiser=False, networks=()):
        self.within += 1
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            self.within -= 1

    def embed(self, prompts):
        rows = [torch.randn(3, 5, generator=torch.Generator().manual_seed(len(p))) for p in prompts]
        return Conditioning(torch.stack(rows).to(self.dtype), None, tuple(prompts))

    def denoise(self, z_t, sigma, conditioning, recorder=None):
        self.calls["denoise"] += 1
        out = self._run(z_t, sigma, conditioning, recorder, None)
        return out if self.spoil is None else self.spoil(out, float(sigma[0]))

    def features(self, z_t, sigma, conditioning, recorder):
        self.calls["features"] += 1
        with contextlib.suppress(Enough):
            self._run(z_t, sigma, conditioning, recorder, list(recorder.wanted(TAPS))[-1])

    def _run(self, z_t, sigma, conditioning, recorder, last):
        wanted = {} if recorder is None else recorder.wanted(TAPS)
        call = 0 if recorder is None else recorder.calls
        if recorder is not None:
            recorder.calls += 1

        def seen(name, h):
            if name not in wanted:
                return
            for row, value in enumerate(wanted[name].reducer(h, Grid(*h.shape[-2:]))):
                key = Key(name, call, "cond", row)
                recorder.put(Record(key, float(sigma[row]), Grid(*h.shape[-2:]), value))
            if name == last:
                raise Enough

        level = sigma.view(-1, 1, 1, 1)
        if self.prediction == "flow":  # velocity eps - z
            out = self.unet(z_t, sigma, conditioning.tokens, seen)
            return z_t - level * out
        # as Stable Diffusion's networks: variance-preserving input
        out = self.unet(z_t / (1 + level**2).sqrt(), sigma, conditioning.tokens, seen)
        if self.prediction == "v":
            return z_t / (1 + level**2) - level / (1 + level**2).sqrt() * out
        return z_t - level * out

    def noise(self, shape, seed):
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
            self.dtype
        )

    def rows_that_fit(self, latent_shape, *, backward=False, decoder=False):
        return self.fit


@pytest.fixture
def make():
    """`make(prediction, dtype, fit, tiny)` → a backbone."""
    return Backbone
