"""A whole attempt of Reroll Until Good in one node: what ComfyUI caches of it are its scores, not its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..core.hosts.comfyui.counting import calls_of, count_calls
from ._inputs import one
from ._reroll import judged
from ._reroll_graph import WHOLE, link_inputs
from ._reroll_parts import attempt_schema, attempt_seed


class RerollSample(io.ComfyNode):
    """KSampler, VAE Decode and the scorer, one after the other.

    It takes whole lists and walks over them as ComfyUI does over those of a KSampler: so a list of latents or prompts
    is one attempt of several samplings here too.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        again = io.Boolean.Input("again", default=False, tooltip="Whether it was sampled before.")
        inputs = [*link_inputs(raw=False), attempt_seed(), *sampling_inputs(), again]
        return attempt_schema(WHOLE, "Reroll Sample", inputs)

    @classmethod
    def execute(
        cls,
        model: Sequence[Any],
        positive: Sequence[Any],
        negative: Sequence[Any],
        latent_image: Sequence[Any],
        vae: Sequence[Any],
        scorer: Sequence[Any],
        seed: Sequence[int],
        steps: Sequence[int],
        cfg: Sequence[float],
        sampler_name: Sequence[str],
        scheduler: Sequence[str],
        denoise: Sequence[float],
        again: Sequence[
            bool
        ],  # not read: ComfyUI must not answer a second time with the attempt that forgot its pixels
    ) -> io.NodeOutput:
        """Sample as KSampler does, because it is KSampler that does."""
        kinds = import_module("nodes").NODE_CLASS_MAPPINGS  # ComfyUI's own module of that name
        counted = [count_calls(each) for each in model]
        settings = seed[0], steps[0], cfg[0], sampler_name[0], scheduler[0]
        latents, images = [], []
        for place in range(max(len(each) for each in (model, positive, negative, latent_image))):
            (own, _), yes, no, start = (_at(each, place) for each in (counted, positive, negative, latent_image))
            latents += kinds["KSampler"]().sample(own, *settings, yes, no, start, denoise[0])
        for place in range(max(len(latents), len(vae))):
            images += kinds["VAEDecode"]().decode(_at(vae, place), _at(latents, place))
        spent = calls_of([calls for _, calls in counted], len(latents))
        return io.NodeOutput(judged(images, latents, positive, spent, one(scorer, "scorer"), seed[0]))


def _at(values: Sequence[Any], place: int) -> Any:
    """The value at a place; behind the end the last one, as in ComfyUI."""
    return values[min(place, len(values) - 1)]


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
