"""What a GenzIQA score costs beside the network calls that it cannot do without, on ComfyUI's own objects."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backbone.schedule import sigma_of_timestep
from .speed_row import SpeedRow, time_row
from .timing import Job, Timings, interleaved, own_clock

_TEXTS = 2
#: The scorer's own share is a few hundredths of a score's time: pairs of runs behind its ratio, for each repeat.
_PAIRS_A_REPEAT = 3
CALLS = "1 VAE encode, 1 denoiser forward of {rows} rows (2 prompts × {levels} levels); prompts embedded once in both"


def genziqa_rows(model: Any, clip: Any, vae: Any, *, repeats: int, side: int) -> list[SpeedRow]:
    """Four rows: the fast and the published setting over their bare calls, fast over published, linear in images.

    Jobs of one timing use one adapted model: ComfyUI lays LoRA anew when another clone of a model is loaded.

    Args:
        model, clip, vae: ComfyUI's.
        repeats: Interleaved runs behind the published setting's and the last row's median; the fast one's has three
            pairs for each.
        side: Of the images, in pixels.
    """
    from ..hosts.comfyui.adaptable import AdaptableComfyBackbone
    from ..methods.genziqa import GenzIQA
    from ..methods.genziqa_head import untrained
    from ..methods.genziqa_settings import FAST, PUBLISHED, GenzSettings

    backbone = AdaptableComfyBackbone(model, clip, vae)
    images = list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    size, rows, taken = f"{side}×{side} px", [], {}
    with own_clock(model.load_device) as clock:
        for name, levels, pairs in (("published", PUBLISHED, repeats), ("fast", FAST, _PAIRS_A_REPEAT * repeats)):
            head = untrained(backbone, GenzSettings(timesteps=levels, side=side))
            scorer = GenzIQA(backbone, head)
            bare = Bare(model, vae, backbone.embed_soft(head.prompts).tokens, [sigma_of_timestep(t) for t in levels])
            jobs: dict[str, Job] = {"one": partial(scorer.score, images[:1]), "bare": partial(bare.run, images[0])}
            over = interleaved(jobs, pairs, clock)
            calls = CALLS.format(rows=_TEXTS * len(levels), levels=len(levels))
            held = scorer.held_bytes()
            told = (
                f"1 image of {size}, {pairs} interleaved pairs; bare: {calls}; "
                f"it holds {held['lora']} bytes of LoRA and {held['backup']} of originals"
            )
            words = f"genziqa, {name} ({len(levels)} levels): over its bare calls"
            rows.append(time_row(over, "one", "bare", name=words, limit=1.05, detail=told))
            taken[name] = over.taken["one"][:repeats]
        linear = interleaved({"two": partial(scorer.score, images), "one": jobs["one"]}, repeats, clock)
    many = f"2 images of {size}, {repeats} interleaved runs"
    both = f"1 image of {size}, {repeats} runs of each; the head's card has how alike they rank"
    return [
        *rows,
        time_row(Timings(taken), "fast", "published", name="genziqa: fast over published", limit=0.6, detail=both),
        time_row(linear, "two", "one", factor=2, name="genziqa: linear in images", limit=1.1, detail=many),
    ]


class Bare:
    """The network calls of one image's score on ComfyUI's own objects, and no more.

    Calls: ``vae.encode`` once, ``apply_model`` once with a row for each prompt and level. Nothing is recorded, and no
    LoRA is laid over the weights: ComfyUI merges it, so a forward costs the same.
    """

    def __init__(self, model: Any, vae: Any, tokens: Tensor, sigmas: list[float]) -> None:
        self._network, self._vae, self._device = model.model, vae, model.load_device
        self._context = tokens.to(self._device).repeat_interleave(len(sigmas), 0)
        self._sigma = torch.tensor(sigmas * _TEXTS, device=self._device)

    @torch.no_grad()
    def run(self, image: Tensor) -> float:
        """Encode, noise, one forward; reads one number back so that queued work is done."""
        latent = self._vae.encode(image[None].movedim(1, -1)).to(self._device)
        z = self._network.process_latent_in(latent).repeat(len(self._sigma), 1, 1, 1)
        z_t = z + self._sigma.view(-1, 1, 1, 1) * torch.randn_like(z)
        return float(self._network.apply_model(z_t, self._sigma, c_crossattn=self._context).mean())
