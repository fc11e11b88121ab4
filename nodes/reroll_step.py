"""The two nodes that Reroll Until Good puts between its attempts. Nobody places them by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.hosts.comfyui.counting import count_calls
from ..core.methods.contract import Scorer
from ..core.selection.reroll_log import to_dict
from ._inputs import one
from ._reroll_graph import COUNTER, LINKS, STEP, attempt_graph, link_inputs, outputs
from ._scoring import merged_scores
from ._sockets import CATEGORY_MAKING, CallsSocket, ScorerSocket, ScoresSocket, SessionSocket


class RerollStep(io.ComfyNode):
    """Looks at the attempt before it, then starts another one or ends."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=STEP,
            display_name="Reroll Step (internal)",
            category=CATEGORY_MAKING,
            description="Part of Reroll Until Good, which puts it into the running graph by itself. Do not place it.",
            is_input_list=True,
            is_deprecated=True,  # keeps it out of the frontend's search
            enable_expand=True,
            inputs=[
                SessionSocket.Input("session", tooltip="The attempts so far."),
                *link_inputs(scorer_optional=False),
                ScorerSocket.Input("judge", tooltip="The same scorer, to ask what its values mean."),
                io.Latent.Input("start", tooltip="The same latent_image, to draw the winner's noise."),
                io.Image.Input("new_images", optional=True, tooltip="The images of the attempt before."),
                io.Latent.Input("new_latents", optional=True, tooltip="Their latents."),
                ScoresSocket.Input("new_scores", optional=True, tooltip="Their scores."),
                CallsSocket.Input("calls", optional=True, tooltip="The denoiser calls that they took."),
            ],
            outputs=outputs(candidates_as_list=False),
        )

    @classmethod
    def execute(
        cls,
        session: list[Any],
        judge: list[Any],
        start: list[Any],
        new_images: Sequence[Any] | None = None,
        new_latents: Sequence[Any] | None = None,
        new_scores: Sequence[Any] | None = None,
        calls: Sequence[Any] | None = None,
        **links: list[Any],
    ) -> io.NodeOutput:
        """Count the attempt in, and go on or end."""
        (now,) = session
        scorer = one(judge, "scorer")
        if not isinstance(scorer, Scorer):
            raise BadInput(
                "a scorer (LC_SCORER)", type(scorer).__name__, "Connect one of Latent Critic's scorer nodes."
            )
        now.state.policy.check(scorer.spec)
        scores = merged_scores(new_scores)
        if new_images is not None and new_latents is not None and scores is not None and calls:
            now = now.add(new_images, new_latents, scores, calls[0].count)
        seed = now.state.next_seed
        if seed is not None:
            return attempt_graph(now, {name: links[name][0] for name in LINKS}, seed)
        results, shown = now.results(start)
        log_json = json.dumps(to_dict(now.state), ensure_ascii=False)
        return io.NodeOutput(*results, shown["text"][0], log_json, ui=shown)


class CountCalls(io.ComfyNode):
    """MODEL → the same model with a counter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=COUNTER,
            display_name="Count Denoiser Calls (internal)",
            category=CATEGORY_MAKING,
            description="Part of Reroll Until Good, which puts it into the running graph by itself. Do not place it.",
            is_deprecated=True,  # keeps it out of the frontend's search
            inputs=[io.Model.Input("model", tooltip="The model to sample with.")],
            outputs=[
                io.Model.Output("counted", "model", "The same model."),
                CallsSocket.Output("calls", "calls", "How often the latest sampling has called it."),
            ],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Clone the model; the clone shares the weights."""
        return io.NodeOutput(*count_calls(model))
