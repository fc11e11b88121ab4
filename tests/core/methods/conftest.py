"""A tiny real denoiser in plain torch behind the backbone contract: no host is needed to test a scorer's sums."""

import copy
import math

import pytest
import torch
from latent_critic.core.backbone.adaptation import TextSpace
from latent_critic.core.backbone.contracts import Conditioning, Family, Tap
from latent_critic.core.backbone.fingerprint import Fingerprint
from latent_critic.core.taps.recorder import Grid, Key, Record
from torch import nn
from torch.nn import functional as F

HEADS, WIDTH, TOKENS = 2, 16, 6
TAPS = (Tap("down.0.0", "attention", HEADS, 1), Tap("mid", "feature", WIDTH, 2), Tap("up.0.0", "attention", HEADS, 2))


class _Enough(Exception):
    pass


class TinyUNet(nn.Module):
    """Two scales, each with one cross-attention; the text moves the prediction through it."""

    def __init__(self):
        super().__init__()
        self.inside, self.outside = nn.Conv2d(4, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 4, 3, padding=1)
        self.level = nn.Linear(1, WIDTH)
        self.q = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.k = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.v = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x, sigma, tokens, seen):
        h = self.inside(x) + self.level(sigma[:, None].log())[:, :, None, None]
        h = self.attend(h, tokens, 0, seen)
        low = self.attend(F.avg_pool2d(F.silu(h), 2, ceil_mode=True), tokens, 1, seen)
        return self.outside(F.silu(h + F.interpolate(low, h.shape[-2:])))

    def attend(self, h, tokens, place, seen):
        grid = Grid(*h.shape[-2:])
        flat = h.flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.q[place](flat), self.k[place](tokens), self.v[place](tokens))
        )
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        seen(place, logits.float(), grid)
        out = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return h + out.transpose(1, 2).unflatten(-1, (grid.h, grid.w))


class TinyBackbone:
    """The contract over a TinyUNet, with an average-pooling VAE. Counts its calls."""

    def __init__(self, prediction="eps", dtype=torch.float32, fit=1000, silent=()):
        torch.manual_seed(0)
        self.unet, self.prediction, self.dtype, self.fit, self.silent = TinyUNet(), prediction, dtype, fit, silent
        self.texts = torch.Generator()
        self.calls = {"encode": 0, "embed": 0, "denoise": 0, "features": 0}
        self.rows = []
        self.family = Family("tiny", prediction, 4, 8, 64, "none", TAPS)
        self.fingerprint = Fingerprint("tiny", (0.5, -0.5))
        self.identity = {"model": "plain"}

    def encode(self, pixels, *, value_range=(-1.0, 1.0), sample=None):
        self.calls["encode"] += 1
        low = F.avg_pool2d(pixels * 2 - 1, 8)
        return torch.cat([low, low.mean(1, keepdim=True)], 1)

    def embed(self, prompts):
        self.calls["embed"] += 1
        rows = [torch.randn(TOKENS, WIDTH, generator=self.texts.manual_seed(sum(p.encode()))) for p in prompts]
        return Conditioning(torch.stack(rows), None, tuple(prompts))

    def denoise(self, z_t, sigma, conditioning, recorder=None):
        self.calls["denoise"] += 1
        return self._run(z_t, sigma, conditioning, recorder, None)

    def features(self, z_t, sigma, conditioning, recorder):
        self.calls["features"] += 1
        self._run(z_t, sigma, conditioning, recorder, recorder.requests[-1].tap.name)

    def _run(self, z_t, sigma, conditioning, recorder, last):
        self.rows.append(len(z_t))
        names = ("down.0.0", "up.0.0")
        wanted = {} if recorder is None else recorder.wanted(TAPS)

        def seen(place, logits, grid):
            request = wanted.get(names[place])
            if request is None or names[place] in self.silent:
                return
            for row, value in enumerate(request.reducer(logits, grid)):
                key = Key(names[place], recorder.calls, "cond", row)
                recorder.put(Record(key, float(sigma[row]), grid, value))
            if names[place] == last:
                raise _Enough

        network = self.unet.to(self.dtype)
        try:
            out = network(z_t.to(self.dtype), sigma.to(self.dtype), conditioning.tokens.to(self.dtype), seen).float()
        except _Enough:
            return None
        level = sigma.view(-1, 1, 1, 1)
        return z_t - level * out

    # What GenzIQA lays over a model: one text encoder "l" of TOKENS tokens, whose masks are causal.

    def text_spaces(self):
        return {"l": TextSpace(WIDTH, TOKENS)}

    def suffixes(self, words, context):
        room = TOKENS - 1 - context
        return {"l": tuple(tuple(sum(word.encode()) % 50 + place for place in range(room)) for word in words)}

    def start_token(self, encoder):
        return 1000

    def token_vectors(self, ids, encoder):
        rows = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(number)) for number in ids]
        return torch.stack(rows) if rows else torch.zeros(0, WIDTH)

    def token_ids(self, vectors, encoder):
        table = self.token_vectors(range(1001), encoder)
        apart = (vectors[:, None] - table).norm(dim=-1)
        return [int(row.argmin()) if row.min() < 0.02 else None for row in apart]

    def embed_soft(self, prompts):
        start = self.token_vectors([self.start_token("l")], "l")
        rows = [torch.cat([start, prompts.context["l"], self.token_vectors(row, "l")]) for row in prompts.suffix["l"]]
        tokens = torch.stack(rows)
        return Conditioning(tokens.cumsum(1) / torch.arange(1, TOKENS + 1)[:, None] ** 0.5, None, prompts.texts)

    def cross_shapes(self):
        names = ("down.0.0", "up.0.0")
        return {(name, part): (WIDTH, WIDTH) for name in names for part in ("q", "k", "v")}

    def adapted(self, change):
        change.check(self.cross_shapes())
        other = copy.copy(self)
        other.unet = copy.deepcopy(self.unet)
        with torch.no_grad():
            for (name, part), (down, up) in change.layers.items():
                layer = getattr(other.unet, part)[("down.0.0", "up.0.0").index(name)]
                layer.weight += up @ down
        return other

    def held_bytes(self):
        return {"lora": 0, "backup": 0}

    def noise(self, shape, seed):
        return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))

    def rows_that_fit(self, latent_shape, *, backward=False):
        return self.fit


@pytest.fixture
def backbone():
    """Builder: (prediction, dtype, fit, silent)."""
    return TinyBackbone
