"""The graph of one more attempt of Reroll Until Good.

The attempts are real nodes that are put into the graph one after another: KSampler, VAE Decode, Score Images. Each gets
its inputs as links, never as values. So ComfyUI knows an attempt again at the next run: a larger budget samples only
the new ones, another threshold samples none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ._reroll import Session
from ._sockets import ScorerSocket, ScoresSocket

STEP, COUNTER, SCORING = "LatentCriticRerollStep", "LatentCriticCountCalls", "LatentCriticScoreImages"
#: A node that says so gets the link itself instead of what comes through it.
_RAW: dict[str, Any] = {"rawLink": True}
#: The links that are handed on to every attempt.
LINKS = ("model", "positive", "negative", "latent_image", "vae", "scorer")


def link_inputs(scorer_optional: bool) -> list[io.Input]:
    """What attempts are made of, by :data:`LINKS`."""
    start = "The latent to start from: an empty one, or an encoded image with denoise below 1."
    scorer = "The scorer that judges the attempts." + (
        " Without one, the built-in judge is used." if scorer_optional else ""
    )
    return [
        io.Model.Input("model", tooltip="The diffusion model to sample with.", extra_dict=_RAW),
        io.Conditioning.Input("positive", tooltip="What you want in the image.", extra_dict=_RAW),
        io.Conditioning.Input("negative", tooltip="What you do not want in the image.", extra_dict=_RAW),
        io.Latent.Input("latent_image", tooltip=start, extra_dict=_RAW),
        io.Vae.Input("vae", tooltip="The VAE that decodes each attempt.", extra_dict=_RAW),
        ScorerSocket.Input("scorer", tooltip=scorer, optional=scorer_optional, extra_dict=_RAW),
    ]


def outputs(candidates_as_list: bool) -> list[io.Output]:
    """The outputs of the node, and of its step: there the candidates travel as one value.

    ComfyUI spreads a list output of an inner node over the outputs behind it.
    """
    return [
        io.Image.Output("image", "image", "The best image."),
        io.Latent.Output("latent", "latent", "Its latent, for an upscale or a second pass."),
        io.Float.Output("score", "score", "Its score."),
        io.Int.Output("seed_used", "seed", "Its seed: a KSampler with the same inputs and this seed makes it again."),
        io.Latent.Output("noise", "noise", "The noise that its sampling began with, for samplers that take noise."),
        io.Boolean.Output(
            "passed", "passed", "Whether it reached the threshold; without a threshold, whether it has a score."
        ),
        ScoresSocket.Output("scores", "scores", "The scores of all candidates, in the order of the attempts."),
        io.Image.Output(
            "candidates",
            "candidates",
            "All images, in the order of the attempts.",
            is_output_list=candidates_as_list,
        ),
        io.String.Output("log", "log", "Every attempt as a table: seed, score, denoiser calls, seconds, reason."),
        io.String.Output("log_json", "log json", "The same log as JSON."),
    ]


def attempt_graph(session: Session, links: Mapping[str, Any], seed: int) -> io.NodeOutput:
    """One more attempt and the step that looks at it, whose outputs take the place of the present node's."""
    # ComfyUI's own ids hold those of all nodes around them: after hundreds of attempts they would be thousands of
    # characters long.
    graph = GraphBuilder(f"{session.prefix}{len(session.state.attempts)}.")
    counter = graph.node(COUNTER, model=links["model"])
    sampled = graph.node(
        "KSampler",
        model=counter.out(0),
        positive=links["positive"],
        negative=links["negative"],
        latent_image=links["latent_image"],
        seed=seed,
        **session.sampling,
    )
    images = graph.node("VAEDecode", samples=sampled.out(0), vae=links["vae"])
    scores = graph.node(SCORING, images=images.out(0), scorer=links["scorer"])
    found = {
        "new_images": images.out(0),
        "new_latents": sampled.out(0),
        "new_scores": scores.out(0),
        "calls": counter.out(1),
    }
    return step_graph(graph, session.ahead(seed), {**links, **found})


def step_graph(graph: GraphBuilder, session: Session, links: Mapping[str, Any]) -> io.NodeOutput:
    """The step behind what the graph holds so far, with its outputs as results."""
    step = graph.node(STEP, session=session, judge=links["scorer"], start=links["latent_image"], **links)
    return io.NodeOutput(*(step.out(place) for place in range(len(outputs(False)))), expand=graph.finalize())
