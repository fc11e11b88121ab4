"""Best Of N: start many seeds, finish the promising ones, hand on the best."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.hosts.comfyui.sampling_task import ksampler_task
from ._best_of import BestOf, best_of
from ._best_of_inputs import SEES, notes_of, outputs, race_inputs, rules_of, seed_input, seeds_of, start_inputs
from ._sockets import CATEGORY_MAKING
from .reroll_sample import sampling_inputs


class BestOfN(io.ComfyNode):
    """A KSampler for N seeds at once, with a judge that looks on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticBestOfN",
            display_name="Best Of N",
            category=CATEGORY_MAKING,
            description="Starts N seeds together, scores the predicted clean images on the way, finishes only the "
            f"better part and hands on the best image. What comes out is what a KSampler makes of that seed. {SEES}",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to sample with."),
                io.Conditioning.Input("positive", tooltip="What you want in the image."),
                io.Conditioning.Input("negative", tooltip="What you do not want in the image."),
                *start_inputs(),
                seed_input(),
                *sampling_inputs("candidate"),
                *race_inputs(),
            ],
            outputs=outputs(),
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
        looks, policy = rules_of(widgets)
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
        return best_of(BestOf(task, vae, scorer, looks, policy, sampler_name, notes_of(widgets)))
