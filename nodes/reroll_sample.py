"""A whole attempt of Reroll Until Good in one node: what ComfyUI caches of it are its scores, not its pixels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..core.hosts.comfyui.counting import count_calls
from ..core.selection.seeds import MOST
from ._reroll import judged
from ._reroll_graph import WHOLE, link_inputs
from ._sockets import CATEGORY_MAKING, AttemptSocket
from .reroll_step import INTERNAL


class RerollSample(io.ComfyNode):
    """KSampler, VAE Decode and the scorer, one after the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=WHOLE,
            display_name="Reroll Sample (internal)",
            category=CATEGORY_MAKING,
            description=INTERNAL,
            is_deprecated=True,  # keeps it out of the frontend's search
            inputs=[
                *link_inputs(raw=False),
                io.Int.Input("seed", default=0, min=0, max=MOST, tooltip="The seed of the attempt."),
                *sampling_inputs(),
                io.Boolean.Input("again", default=False, tooltip="Whether it was sampled before."),
            ],
            outputs=[AttemptSocket.Output("attempt", "attempt", "The attempt with its scores.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: Any,
        vae: Any,
        scorer: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        again: bool,
    ) -> io.NodeOutput:
        """Sample as KSampler does, because it is KSampler that does."""
        kinds = import_module("nodes").NODE_CLASS_MAPPINGS  # ComfyUI's own module of that name
        counted, calls = count_calls(model)
        (latent,) = kinds["KSampler"]().sample(
            counted, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise
        )
        (images,) = kinds["VAEDecode"]().decode(vae, latent)
        return io.NodeOutput(judged([images], [latent], calls.count, scorer, seed))


def sampling_inputs(each: str = "attempt") -> list[io.Input]:
    """KSampler's widgets but for the seed, under its own names."""
    return [
        io.Int.Input("steps", default=20, min=1, max=10000, tooltip=f"Sampling steps of each {each}."),
        io.Float.Input(
            "cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Classifier-free guidance."
        ),
        io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, tooltip="The sampler."),
        io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="The noise schedule."),
        io.Float.Input(
            "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Below 1, part of latent_image is kept."
        ),
    ]
