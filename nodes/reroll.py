"""Reroll Until Good: sample seed after seed until one is good enough, and hand on the best."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..core.selection.reroll import RerollPolicy, Rerolls
from ..core.selection.seeds import MOST, Seeds, parse_seeds
from ._reroll import Run
from ._reroll_graph import LINKS, group_graph, link_inputs, outputs
from ._seed_inputs import seed_order_inputs
from ._sockets import CATEGORY_MAKING
from .reroll_sample import sampling_inputs

#: Each group of attempts lies inside the one before it, and ComfyUI looks through all of them.
MOST_ATTEMPTS = 500
HINT_JUDGE = (
    "Nothing is connected to scorer, so the built-in judge was used. "
    "For the judgement of your loaded model, connect a Zero-shot Scorer and set the threshold to -1."
)


class RerollUntilGood(io.ComfyNode):
    """A KSampler with a judge behind it and a budget."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticReroll",
            display_name="Reroll Until Good",
            category=CATEGORY_MAKING,
            description="Samples seed after seed, scores each image, stops at the first good one or at the end of the "
            "budget, and hands on the best. A longer budget samples only the new seeds, another threshold none. "
            "The built-in judge sees sharpness, noise, exposure and artefacts; it does not see wrong hands or faces, "
            "nor whether the image fits the prompt.",
            is_output_node=True,
            enable_expand=True,
            inputs=[*link_inputs(), _seed(), *sampling_inputs(), *_stopping()],
            outputs=outputs(candidates_as_list=True),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: Any,
        vae: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        threshold: float,
        max_attempts: int,
        stop_at_first_good: bool,
        seed_mode: Any,
        seed_list: str,
        max_calls: int,
        max_seconds: float,
        keep_candidates: bool = True,
        scorer: Any = None,
    ) -> io.NodeOutput:
        """Check the budget, then let the first step begin."""
        policy = RerollPolicy(
            None if threshold < 0 else threshold,
            max_attempts,
            max_calls or None,
            max_seconds or None,
            stop_at_first_good,
        )
        seeds = Seeds(seed, seed_mode, parse_seeds(seed_list) if seed_mode == "list" else ())
        sampling = {
            "steps": steps,
            "cfg": cfg,
            "sampler_name": sampler_name,
            "scheduler": scheduler,
            "denoise": denoise,
        }
        graph = GraphBuilder()
        judge = scorer or graph.node("LatentCriticQualityJudge", "judge").out(0)
        links = dict(zip(LINKS, (model, positive, negative, latent_image, vae, judge), strict=True))
        hint = "" if scorer else HINT_JUDGE
        run = Run(Rerolls(policy, seeds), sampling, links, graph.prefix, keep_candidates, hint)
        # Cached with this node, and filled when the last step ends: /history has the scores of a cached run too.
        return group_graph(graph, run, 0, ui={"reroll": [run.shown]})


def _seed() -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MOST,
        control_after_generate=True,
        tooltip="The first seed. Set it to fixed to go on later: attempts that were sampled before are then used "
        "again.",
    )


def _stopping() -> list[io.Input]:
    """What is good, and the budget."""
    return [
        io.Float.Input(
            "threshold",
            default=50.0,
            min=-1.0,
            max=100.0,
            step=0.5,
            tooltip="Good is a score of at least this (on scales where lower is better: at most this). -1 switches it "
            "off: the whole budget is used and the best is kept. Uncalibrated scorers need -1.",
        ),
        io.Int.Input(
            "max_attempts", default=8, min=1, max=MOST_ATTEMPTS, tooltip="At most this many seeds are sampled."
        ),
        io.Boolean.Input(
            "stop_at_first_good",
            default=True,
            tooltip="Stop at the first image that reaches the threshold. Off: use the whole budget and take the best.",
        ),
        *seed_order_inputs(),
        io.Int.Input(
            "max_calls",
            default=0,
            min=0,
            max=10_000_000,
            tooltip="At most this many denoiser calls in all attempts together (euler: one a step for each image). The "
            "first attempt always runs. 0 means no limit.",
        ),
        io.Float.Input(
            "max_seconds",
            default=0.0,
            min=0.0,
            max=1_000_000.0,
            step=1.0,
            tooltip="No attempt starts after this many seconds; one that runs is finished. 0 means no limit.",
        ),
        io.Boolean.Input(
            "keep_candidates",
            default=True,
            optional=True,  # prompts from before this widget stay valid
            tooltip="Keep all images, in this node's output and in ComfyUI's cache. Off: only the best attempt keeps "
            "its pixels, so that hundreds of attempts need no more memory than one.",
        ),
    ]
