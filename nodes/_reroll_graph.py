"""The graph of the attempts of Reroll Until Good.

Attempts are real nodes in the running graph. Each gets its inputs as links, never as values: so ComfyUI knows an
attempt again at the next run, a larger budget samples only the new ones, and another threshold samples none.

A whole group of attempts is put into the graph at once, in front of one step with a lazy input for each: an attempt
runs when the step asks for it. ComfyUI looks an inner node up through all nodes around it, so that one attempt inside
the other would take minutes for some hundred attempts.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ._reroll import Run
from ._sockets import ScorerSocket, ScoresSocket

STEP, COUNTER = "LatentCriticRerollStep", "LatentCriticCountCalls"
JUDGED, WHOLE = "LatentCriticRerollAttempt", "LatentCriticRerollSample"
#: Attempts in front of one step.
GROUP = 25
#: A node that says so gets the link itself instead of what comes through it.
_RAW: dict[str, Any] = {"rawLink": True}
#: What attempts are made of.
LINKS: tuple[str, ...] = ("model", "positive", "negative", "latent_image", "vae", "scorer")


def link_inputs(raw: bool = True) -> list[io.Input]:
    """What attempts are made of, by :data:`LINKS`; ``raw`` for the node that hands the links on."""
    extra = _RAW if raw else None
    start = "The latent to start from: an empty one, or an encoded image with denoise below 1."
    scorer = "The scorer that judges the attempts." + (" Without one, the built-in judge is used." if raw else "")
    return [
        io.Model.Input("model", tooltip="The diffusion model to sample with.", extra_dict=extra),
        io.Conditioning.Input("positive", tooltip="What you want in the image.", extra_dict=extra),
        io.Conditioning.Input("negative", tooltip="What you do not want in the image.", extra_dict=extra),
        io.Latent.Input("latent_image", tooltip=start, extra_dict=extra),
        io.Vae.Input("vae", tooltip="The VAE that decodes each attempt.", extra_dict=extra),
        ScorerSocket.Input("scorer", tooltip=scorer, optional=raw, extra_dict=extra),
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
            "All images, in the order of the attempts; with keep_candidates off, the best one.",
            is_output_list=candidates_as_list,
        ),
        io.String.Output("log", "log", "Every attempt as a table: seed, score, denoiser calls, seconds, reason."),
        io.String.Output("log_json", "log json", "The same log as JSON."),
    ]


def group_graph(graph: GraphBuilder, run: Run, first: int, **shown: Any) -> io.NodeOutput:
    """A group of attempts, from this number on, and the step that asks for them.

    The group is whole whatever the budget: so that ComfyUI keeps attempts that a smaller budget leaves out.
    """
    attempts = {
        lazy_name(place): _attempt(graph, run, seed, f"{first + place}.")
        for place, seed in enumerate(run.seeds(first, GROUP))
    }
    return _step(graph, run, first=first, **attempts, **shown)


def next_group_graph(run: Run) -> io.NodeOutput:
    """The group behind all attempts so far."""
    # ComfyUI's own ids hold those of all nodes around them and would grow with every group.
    return group_graph(GraphBuilder(f"{run.prefix}{len(run)}."), run, len(run))


def again_graph(run: Run, seed: int) -> io.NodeOutput:
    """The best attempt once more, whose pixels an earlier run has let go of, and the step that ends."""
    graph = GraphBuilder(f"{run.prefix}again.")
    sampled = graph.node(WHOLE, **run.links, **run.sampling, seed=seed, again=True)
    return _step(graph, run, first=len(run), winner=sampled.out(0))


def lazy_name(place: int) -> str:
    """The step's input for an attempt of its group."""
    return f"attempt_{place}"


def _attempt(graph: GraphBuilder, run: Run, seed: int, name: str) -> list[Any]:
    """The nodes of one attempt; returns the link to what it found."""
    links = run.links
    if not run.keep_all:
        return graph.node(WHOLE, f"{name}all", **links, **run.sampling, seed=seed, again=False).out(0)
    counter = graph.node(COUNTER, f"{name}calls", model=links["model"])
    inputs = {name: links[name] for name in ("positive", "negative", "latent_image")}
    sampled = graph.node("KSampler", f"{name}sample", model=counter.out(0), **inputs, seed=seed, **run.sampling)
    images = graph.node("VAEDecode", f"{name}decode", samples=sampled.out(0), vae=links["vae"])
    found = {"new_images": images.out(0), "new_latents": sampled.out(0), "calls": counter.out(1)}
    found["positive"] = links["positive"]
    return graph.node(JUDGED, f"{name}judge", **found, scorer=links["scorer"], seed=seed).out(0)


def _step(graph: GraphBuilder, run: Run, first: int, **inputs: Any) -> io.NodeOutput:
    """The step behind what the graph holds so far, with its outputs as results."""
    shown = inputs.pop("ui", None)
    links = {"judge": run.links["scorer"], "start": run.links["latent_image"]}
    step = graph.node(STEP, "step", session=run, first=first, **links, **inputs)
    return io.NodeOutput(*(step.out(place) for place in range(len(outputs(False)))), expand=graph.finalize(), ui=shown)
