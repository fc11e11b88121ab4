"""Score Latents: scores before anything is decoded, where the scorer can; only the best need decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.hosts.comfyui.backbone import ComfyBackbone
from ..core.methods.contract import LatentScorer
from ..core.methods.lgdm import Lgdm
from ..core.records import ScoreBatch
from ..core.selection.filtering import one_per_image
from ._common_inputs import prompts_input, scoring_inputs, seeds_input
from ._inputs import images_at_door, one, seeds_at_door, texts_at_door
from ._latent_scores import joined, keep_input, latent_outputs, latent_result, latents_given
from ._latents import Latents
from ._scoring import scores_for, watch_in_comfyui
from ._sockets import CATEGORY_ADVANCED


class ScoreLatents(io.ComfyNode):
    """LATENT + scorer → scores and the best latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticScoreLatents",
            display_name="Score Latents",
            category=CATEGORY_ADVANCED,
            description="Scores latents and hands on the best. Scorers on the loaded model start from the latents "
            "themselves: nothing is decoded and encoded again. For all other scorers connect a VAE, and each latent is "
            "decoded for them.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Latent.Input("latents", tooltip="The latents to score: a batch, or a list of batches."),
                keep_input(),
                scoring_inputs()[0],
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="For scorers that look at images, such as the built-in judge: the latents are decoded with "
                    "it. Scorers on the loaded model do without.",
                ),
                prompts_input(),
                seeds_input(),
            ],
            outputs=latent_outputs(),
        )

    @classmethod
    def execute(
        cls,
        latents: list[Any],
        keep: list[int],
        scorer: list[Any] | None = None,
        vae: list[Any] | None = None,
        prompts: list[Any] | None = None,
        seeds: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score from the latents, or from what the VAE makes of them."""
        found, count = latents_given(latents)
        texts = texts_at_door(prompts, count)
        chosen = one(scorer, "scorer")
        if isinstance(chosen, LatentScorer) and isinstance(chosen.backbone, ComfyBackbone):
            numbers = seeds_at_door(seeds, count)
            batch = _from_latents(chosen, chosen.backbone, found, texts, count)
            return latent_result(found, batch if numbers is None else batch.with_seeds(numbers), keep)
        decoder = one(vae, "vae")
        if decoder is None:
            raise BadInput(
                "a VAE, since this scorer looks at images",
                "none",
                "Connect the checkpoint's VAE, or a scorer on the loaded model.",
            )
        batch, hint = scores_for(images_at_door(_decoded(decoder, found)), scorer, None, texts, seeds)
        return latent_result(found, batch, keep, hint)


def _from_latents(
    scorer: LatentScorer, backbone: ComfyBackbone, latents: Latents, prompts: Sequence[str] | None, count: int
) -> ScoreBatch:
    texts = None if prompts is None else one_per_image(prompts, count, "prompts")
    watch = watch_in_comfyui(count)
    watch(0, count)
    batches, start = [], 0
    for latent in latents.dicts:
        samples = latent["samples"]
        part = None if texts is None else texts[start : start + len(samples)]
        stop = start + len(samples)
        # Masks, one for each, are those of the whole list.
        its = scorer.part(start, stop, count) if isinstance(scorer, Lgdm) else scorer
        batches.append(its.score_latents(backbone.in_model_space(samples), part, watch=watch))
        start = stop
    return joined(batches)


def _decoded(vae: Any, latents: Latents) -> list[torch.Tensor]:
    """Every dict's images [N, H, W, C]."""
    watch, found = watch_in_comfyui(len(latents.dicts)), []
    for place, latent in enumerate(latents.dicts):
        watch(place, len(latents.dicts))
        images = vae.decode(latent["samples"])
        found.append(images.flatten(0, 1) if images.ndim == 5 else images)
    return found
