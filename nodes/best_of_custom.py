"""Best Of N for ComfyUI's custom sampling: GUIDER, SAMPLER and SIGMAS instead of KSampler's widgets."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.hosts.comfyui.sampling_task import custom_task
from ._best_of import BestOf, best_of
from ._best_of_inputs import SEES, notes_of, outputs, race_inputs, rules_of, seed_input, seeds_of, start_inputs
from ._sockets import CATEGORY_MAKING


class BestOfNCustom(io.ComfyNode):
    """A SamplerCustomAdvanced for N seeds at once, with a judge that looks on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticBestOfNCustom",
            display_name="Best Of N (custom sampling)",
            category=CATEGORY_MAKING,
            description="Best Of N for any guider, sampler and sigmas: starts N noise seeds together, scores the "
            "predicted clean images on the way, finishes only the better part and hands on the best image. What comes "
            f"out is what SamplerCustomAdvanced with Random Noise makes of that seed. {SEES}",
            is_output_node=True,
            inputs=[
                io.Guider.Input("guider", tooltip="The model with its conditions, such as CFGGuider or BasicGuider."),
                io.Sampler.Input("sampler", tooltip="The sampler, such as KSamplerSelect."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels, such as BasicScheduler."),
                *start_inputs(),
                seed_input(),
                *race_inputs(),
            ],
            outputs=outputs(),
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
        looks, policy = rules_of(widgets)
        task = custom_task(guider, sampler, sigmas, latent_image, seeds_of(widgets), rows_at_once)
        name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
        return best_of(BestOf(task, vae, scorer, looks, policy, name, notes_of(widgets)))
