"""Second half: text encoder and U-Net learn to take noise out of latents, told in words what the picture looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel

from ...data.distortions import KINDS, distort
from .autoencoder import autocast, encode
from .captions import caption
from .measure import latent_spread
from .pictures import Picture, random_crop, step_generator
from .settings import Request
from .state import State

_LEVELS = 1000
_GAMMA = 5.0
_DROP_CAPTION = 0.1
#: Share of crops that stay untouched.
_CLEAN = 0.35
#: How often a kind of damage is drawn, where it is not once: few other kinds have the words of these two.
_TIMES = {"jpeg": 3, "white_noise": 2}
_DRAWN = tuple(kind for kind in KINDS for _ in range(_TIMES.get(kind, 1)))
#: Levels below this one are where quality is read (LGDM and GenzIQA: t < 100).
_LOW = 200
_CHUNK = 16


def signal_shares(levels: int = _LEVELS) -> Tensor:
    """Cumulative alpha of SD 1's schedule: betas 0.00085 to 0.012, linear in their square roots; float64 [levels]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, levels, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def loss_weight(shares: Tensor, gamma: float = _GAMMA) -> Tensor:
    """Min-SNR weight of the eps loss, min(SNR, gamma) / SNR (Hang et al., ICCV 2023, eq. 10)."""
    ratio = shares / (1 - shares)
    return ratio.clamp(max=gamma) / ratio


@dataclass(frozen=True, slots=True)
class Pool:
    """Encoded crops: scaled latents [N, C, h, w] and token ids [N, 77]."""

    latents: Tensor
    tokens: Tensor


class DenoiserTask:
    """Eps prediction with min-SNR weights on a pool of pre-encoded crops that is renewed now and then."""

    def __init__(self, state: State, pictures: Sequence[Picture], request: Request, tokenizer: Any) -> None:
        self.state, self._pictures, self._request, self._tokenizer = state, pictures, request, tokenizer
        self._unet, self._text = state.trained["unet"], state.trained["text_encoder"]
        vae = state.frozen["vae"]
        assert isinstance(vae, AutoencoderTiny)
        assert isinstance(self._text, CLIPTextModel)
        self._vae = vae
        if "latent_scale" not in state.notes:
            state.notes["latent_scale"] = 1.0 / latent_spread(vae, pictures, request.size, request.seed)
        self._shares = signal_shares()
        self._weights = loss_weight(self._shares)
        self._empty = self._tokens([""])[0]
        self._pool_number, self._pool = -1, Pool(torch.empty(0), torch.empty(0))

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """See :class:`.loop.Task`."""
        request, pool = self._request, self._current_pool(step)
        generator = step_generator(request.seed, step)
        rows = torch.randint(len(pool.latents), (request.batch,), generator=generator)
        levels = draw_levels(request.batch, request.low_noise, generator)
        dropped = torch.rand(request.batch, generator=generator) < _DROP_CAPTION
        tokens = torch.where(dropped[:, None], self._empty, pool.tokens[rows]).to(request.device)
        clean = pool.latents[rows].to(torch.float32)
        noise = torch.randn(clean.shape, generator=generator)
        share = self._shares[levels].to(torch.float32)[:, None, None, None]
        noised = (share.sqrt() * clean + (1 - share).sqrt() * noise).to(request.device)
        with autocast(request):
            words = self._text(input_ids=tokens).last_hidden_state
            noised = noised.contiguous(memory_format=torch.channels_last)
            guess = self._unet(noised, levels.to(request.device), encoder_hidden_states=words).sample.float()
        error = (guess - noise.to(request.device)).square().mean(dim=(1, 2, 3))
        loss = (error * self._weights[levels].to(error)).mean()
        return loss, {"mse": float(error.detach().mean())}

    def _current_pool(self, step: int) -> Pool:
        number = step // self._request.pool_steps
        if number != self._pool_number:
            self._pool_number, self._pool = number, self._encode_pool(number)
        return self._pool

    @torch.no_grad()
    def _encode_pool(self, number: int) -> Pool:
        request, captions = self._request, list[str]()
        latents: list[Tensor] = []
        starts = range(0, request.pool, _CHUNK)
        for start in tqdm(starts, desc="encoding crops", leave=False, disable=None):
            crops: list[Tensor] = []
            for place in range(start, min(start + _CHUNK, request.pool)):
                crop, words = self._captioned_crop(step_generator(request.seed, number, place))
                crops.append(crop)
                captions.append(words)
            batch = torch.stack(crops).to(request.device, memory_format=torch.channels_last)
            with autocast(request):
                encoded = encode(self._vae, batch)
            latents.append((encoded.float() * self.state.notes["latent_scale"]).cpu().to(torch.float16))
        return Pool(torch.cat(latents), self._tokens(captions))

    def _captioned_crop(self, generator: torch.Generator) -> tuple[Tensor, str]:
        picture = self._pictures[int(torch.randint(len(self._pictures), (), generator=generator))]
        crop = random_crop(picture.pixels, self._request.size, generator)
        kind = _DRAWN[int(torch.randint(len(_DRAWN), (), generator=generator))]
        severity = 0
        if float(torch.rand((), generator=generator)) >= _CLEAN:
            severity = 1 + int(torch.randint(5, (), generator=generator))
        seed = int(torch.randint(2**31, (), generator=generator))
        return distort(crop, kind, severity, seed), caption(kind, severity, picture.content, generator)

    def _tokens(self, captions: list[str]) -> Tensor:
        return self._tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def draw_levels(count: int, low: float, generator: torch.Generator) -> Tensor:
    """Timesteps [count]: this share of them below ``_LOW``, the others anywhere."""
    anywhere = torch.randint(_LEVELS, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < low, anywhere * _LOW // _LEVELS, anywhere)
