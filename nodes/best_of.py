"""Best Of N: start many seeds, finish the promising ones, hand on the best."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.hosts.comfyui.sampling_task import ksampler_task
from ._best_of import best_of
from ._best_of_inputs import race_schema, seeds_of, told_of
from .reroll_sample import sampling_inputs


class BestOfN(io.ComfyNode):
    """A KSampler for N seeds at once, with a judge that looks on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return race_schema(
            "LatentCriticBestOfN",
            "Best Of N",
            "Starts N seeds together, looks at them on the way and scores what they will become, finishes only the "
            "better part and hands on the best image. What comes out is what a KSampler makes of that seed.",
            [
                io.Model.Input("model", tooltip="The diffusion model to sample with."),
                io.Conditioning.Input("positive", tooltip="What you want in the image."),
                io.Conditioning.Input("negative", tooltip="What you do not want in the image."),
            ],
            sampling_inputs("candidate"),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: Any,
        vae: Any,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        rows_at_once: int,
        scorer: Any = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Check everything, then sample."""
        told = told_of(widgets, vae, scorer, sampler_name)
        task = ksampler_task(
            model,
            positive,
            negative,
            latent_image,
            seeds_of(widgets),
            steps=steps,
            cfg=cfg,
            sampler_name=sampler_name,
            scheduler=scheduler,
            denoise=denoise,
            at_once=rows_at_once,
        )
        return best_of(task, told)
