"""Best Of N for ComfyUI's custom sampling: GUIDER, SAMPLER and SIGMAS instead of KSampler's widgets."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.hosts.comfyui.sampling_task import custom_task
from ._best_of import best_of
from ._best_of_inputs import race_schema, seeds_of, told_of


class BestOfNCustom(io.ComfyNode):
    """A SamplerCustomAdvanced for N seeds at once, with a judge that looks on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return race_schema(
            "LatentCriticBestOfNCustom",
            "Best Of N (custom sampling)",
            "Best Of N for any guider, sampler and sigmas: starts N noise seeds together, looks at them on the way and "
            "scores what they will become, finishes only the better part and hands on the best image. What comes out "
            "is what SamplerCustomAdvanced with Random Noise makes of that seed.",
            [
                io.Guider.Input("guider", tooltip="The model with its conditions, such as CFGGuider or BasicGuider."),
                io.Sampler.Input("sampler", tooltip="The sampler, such as KSamplerSelect."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels, such as BasicScheduler."),
            ],
            [],
        )

    @classmethod
    def execute(
        cls,
        guider: Any,
        sampler: Any,
        sigmas: Any,
        latent_image: Any,
        vae: Any,
        rows_at_once: int,
        scorer: Any = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Check everything, then sample."""
        name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
        told = told_of(widgets, vae, scorer, name)
        task = custom_task(guider, sampler, sigmas, latent_image, seeds_of(widgets), rows_at_once)
        return best_of(task, told)
