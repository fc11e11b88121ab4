"""Score From Probe: finished latents scored by what sampling has computed already."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.heads.head import Head
from ..core.hosts.comfyui.probe import Probe
from ..core.methods.probe import ProbeScorer
from ._common_inputs import seeds_input
from ._inputs import one, seeds_at_door
from ._latent_scores import joined, keep_input, latent_outputs, latent_result, latents_given
from ._sockets import CATEGORY_ADVANCED, HeadSocket, ProbeSocket


class ScoreFromProbe(io.ComfyNode):
    """LATENT + LC_PROBE + LC_HEAD → scores and the best latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticScoreFromProbe",
            display_name="Score From Probe",
            category=CATEGORY_ADVANCED,
            description="Scores the sampler's latents by what Probe Model saw while they were sampled: no second pass, "
            "no decoding. The head decides what the score means: it estimates what it was fitted to, your ratings or "
            "another scorer's scores, and no more. Decode only the best.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Latent.Input(
                    "latents",
                    tooltip="The LATENT output of the sampler that used the probed model, unchanged: the samplings are "
                    "told apart by it.",
                ),
                ProbeSocket.Input("probe", tooltip="The probe of the model that this sampler used."),
                HeadSocket.Input("head", tooltip="A head for probes, from Fit Probe Head or Load Head."),
                keep_input(),
                io.Boolean.Input(
                    "allow_other_model",
                    default=False,
                    tooltip="Use a head that was fitted on another checkpoint of the same family. Its scores then only "
                    "rank, and may rank badly.",
                ),
                seeds_input(),
            ],
            outputs=latent_outputs(),
        )

    @classmethod
    def execute(
        cls,
        latents: list[Any],
        probe: list[Any],
        head: list[Any],
        keep: list[int],
        allow_other_model: list[bool],
        seeds: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Look the runs up and score them."""
        found, count = latents_given(latents)
        seen, fitted = one(probe, "probe"), one(head, "head")
        if not isinstance(seen, Probe):
            raise BadInput("a probe (LC_PROBE)", type(seen).__name__, "Connect Probe Model.")
        if not isinstance(fitted, Head):
            raise BadInput("a head (LC_HEAD)", type(fitted).__name__, "Connect Fit Probe Head or Load Head.")
        numbers = seeds_at_door(seeds, count)
        scorer = ProbeScorer(seen, fitted, override=one(allow_other_model, "allow_other_model", False))
        batch = joined([scorer.score(latent["samples"]) for latent in found.dicts])
        return latent_result(found, batch if numbers is None else batch.with_seeds(numbers), keep)
