"""What a DP-IQA score costs beside the network calls that it cannot do without, on ComfyUI's own objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .speed_row import SpeedRow, scorer_rows

if TYPE_CHECKING:
    from ..methods.dp_iqa_head import DpHead

CALLS = (
    "1 VAE encode, 1 denoiser forward of 1 row with 1485 text tokens, the image adapter and the decoder once; the text "
    "embedded and adapted once in both"
)


def dp_iqa_rows(model: Any, clip: Any, vae: Any, *, repeats: int, side: int) -> list[SpeedRow]:
    """Two rows: over its bare calls, and linear in images.

    Args:
        model, clip, vae: ComfyUI's.
        repeats: Interleaved runs behind each median.
        side: Of the images, in pixels.
    """
    from ..hosts.comfyui.residuals import ResidualComfyBackbone
    from ..methods.dp_iqa import DpIqa

    backbone = ResidualComfyBackbone(model, clip, vae)
    head = random_head(backbone, side)
    scorer = DpIqa(backbone, head)
    images = list(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    scorer.score(images[:1])  # the text, once
    bare = Bare(model, vae, head, torch.randn(1, 1485, head.nets.shape.token_width))
    return scorer_rows(scorer, bare.run, images, repeats=repeats, device=model.load_device, calls=CALLS)


def random_head(backbone: Any, side: int) -> DpHead:
    """Both adapters and a decoder of moderate size; time does not depend on what weights hold."""
    from ..methods.dp_iqa_head import fitting_shape, untrained
    from ..methods.dp_iqa_settings import DpSettings

    width = backbone.embed(["a photo"]).tokens.shape[-1]
    sizes: dict[str, Any] = {"width": 32, "thin": (16, 8), "cells": 8, "hidden": 64, "image_width": 32, "side": side}
    return untrained(backbone, fitting_shape(backbone.family, width, **sizes), DpSettings(side=side))


class Bare:
    """The network calls of one image's score on ComfyUI's own objects, and no more.

    Calls: ``vae.encode`` once, ``apply_model`` once with one row, the image adapter and the decoder once. Nothing is
    recorded: the decoder is given random maps.
    """

    def __init__(self, model: Any, vae: Any, head: DpHead, tokens: Tensor) -> None:
        self._network, self._vae, self._device, self._nets = model.model, vae, model.load_device, head.nets
        self._context = tokens.to(self._device)
        self._sigma = torch.tensor([head.meta.sigmas[0]], device=self._device)
        shape = head.nets.shape.decoder
        self._maps = [torch.randn(1, wide, shape.grid, shape.grid, device=self._device) for wide in shape.channels]

    @torch.no_grad()
    def run(self, image: Tensor) -> float:
        """Encode, adapt, one forward, decode; reads one number back so that queued work is done."""
        pixels = image[None].to(self._device)
        latent = self._vae.encode(image[None].movedim(1, -1)).to(self._device)
        z = self._network.process_latent_in(latent)
        if self._nets.img_adapter is not None:
            self._nets.img_adapter(pixels)
        out = self._network.apply_model(z, self._sigma, c_crossattn=self._context)
        score, _ = self._nets.QFD(*self._maps)
        return float(out.mean() + score[0])
