"""What a guided path costs beside the network calls that it cannot do without, on a model loaded in ComfyUI."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backbone.schedule import sigma_of_timestep
from .speed_row import SpeedRow, time_row
from .timing import TOLD, Job, interleaved, own_clock

_LEVELS = (80, 40)
#: Image side in pixels, and interleaved runs at most: a decoder's backward takes a CPU long. What a context of
#: gradients costs does not grow with the picture; on much smaller ones than any model is made for it would show.
GUIDED_SIDE, MOST_REPEATS = 256, 5
CALLS = (
    "2 levels, each 1 denoiser forward, 2 VAE decoder forwards and 2 backwards, 1 forward and 1 backward of "
    "the judge's psi; that psi once on the picture; texts embedded and the picture encoded before, in both"
)
PLAIN = "2 denoiser forwards"


def guidance_rows(model: Any, clip: Any, vae: Any, *, repeats: int, side: int) -> list[SpeedRow]:
    """Three rows on ComfyUI's MODEL, CLIP and VAE."""
    from ..guidance.options import GuidanceOptions
    from ..guidance.path import guided_path
    from ..hosts.comfyui.backbone import ComfyBackbone
    from ..perceptual.judge import JudgePsi

    repeats = min(repeats, MOST_REPEATS)
    backbone, psi = ComfyBackbone(model, clip, vae), JudgePsi.load()
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    clean, text = backbone.encode(images), backbone.embed([""])
    guided = GuidanceOptions(timesteps=_LEVELS)
    plain = GuidanceOptions(timesteps=_LEVELS, zeta1=0.0, zeta2=0.0)

    def walk(options: GuidanceOptions, rows: int) -> object:
        return guided_path(backbone, clean[:rows], images[:rows], options, psi, text.rows([0] * rows))

    bare = BareGuidance(model, vae, psi, text.tokens)
    jobs: dict[str, Job] = {
        "one": lambda: walk(guided, 1),
        "bare": lambda: bare.run(clean[:1], images[:1]),
        "two": lambda: walk(guided, 2),
        "plain": lambda: walk(plain, 1),
        "forwards": lambda: bare.forwards(clean[:1]),
    }
    with own_clock(model.load_device) as clock:
        row = partial(time_row, interleaved(jobs, repeats, clock))
    size = f"of {side}×{side} px, {repeats} interleaved runs, {TOLD}"
    return [
        row("one", "bare", name="guidance: over its bare calls", limit=1.05, detail=f"1 image {size}; bare: {CALLS}"),
        row("two", "one", factor=2, name="guidance: linear in images", limit=1.1, detail=f"2 images {size}"),
        row(
            "plain",
            "forwards",
            name="guidance: without terms over its forwards",
            limit=1.05,
            detail=f"1 image {size}; bare: {PLAIN}",
        ),
    ]


class BareGuidance:
    """The network calls of a guided path on ComfyUI's own objects, and no more.

    Calls are those that :data:`CALLS` and :data:`PLAIN` name; gradients are taken and thrown away.
    """

    def __init__(self, model: Any, vae: Any, psi: Any, tokens: Tensor) -> None:
        self._network, self._decoder, self._device = model.model, vae.first_stage_model, model.load_device
        self._psi = psi
        self._context = tokens.to(self._device)
        self._sigmas = [sigma_of_timestep(t) for t in _LEVELS]

    def run(self, clean: Tensor, images: Tensor) -> float:
        """All calls of a guided path; reads one number back so that queued work is done."""
        with torch.no_grad():
            reference = self._psi.features(images)
        total = 0.0
        for x0 in self._estimates(clean):
            raw = self._network.process_latent_out(x0)
            total += self._slope(raw, lambda pixels: (pixels - images).square().sum())
            total += self._slope(raw, lambda pixels: self._psi.distance(self._psi.features(pixels), reference).sum())
        return total

    def forwards(self, clean: Tensor) -> float:
        """The denoiser's forwards alone."""
        return sum(float(x0.mean()) for x0 in self._estimates(clean))

    @torch.no_grad()
    def _estimates(self, clean: Tensor) -> list[Tensor]:
        context = self._context.expand(len(clean), -1, -1)
        found = []
        for sigma in self._sigmas:
            levels = torch.full((len(clean),), sigma, device=self._device)
            z_t = clean + sigma * torch.randn_like(clean)
            found.append(self._network.apply_model(z_t, levels, c_crossattn=context))
        return found

    def _slope(self, raw: Tensor, energy: Any) -> float:
        leaf = raw.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(energy((self._decoder.decode(leaf) + 1.0) / 2.0), leaf)
        return float(gradient.mean())
