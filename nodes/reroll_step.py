"""The nodes that Reroll Until Good puts into the running graph. Nobody places them by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.hosts.comfyui.counting import calls_of, count_calls
from ..core.methods.contract import Scorer
from ._inputs import one
from ._reroll import JudgedAttempt, Run, judged
from ._reroll_graph import (
    COUNTER,
    GROUP,
    JUDGED,
    STEP,
    again_graph,
    lazy_name,
    next_group_graph,
    outputs,
)
from ._reroll_parts import attempt_schema, attempt_seed, inner_schema
from ._sockets import AttemptSocket, CallsSocket, ScorerSocket, SessionSocket


class RerollStep(io.ComfyNode):
    """Asks for one attempt after the other, then starts another group or ends."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inner_schema(
            STEP,
            "Reroll Step",
            is_input_list=True,
            enable_expand=True,
            inputs=[
                SessionSocket.Input("session", tooltip="The attempts so far."),
                ScorerSocket.Input("judge", tooltip="The scorer, to ask what its values mean."),
                io.Latent.Input("start", tooltip="The latent_image, to draw the winner's noise."),
                io.Int.Input("first", default=0, min=0, tooltip="Number of the group's first attempt."),
                AttemptSocket.Input("winner", optional=True, tooltip="The best attempt, sampled again."),
                *(
                    AttemptSocket.Input(
                        lazy_name(place), optional=True, lazy=True, tooltip=f"Attempt {place} of the group."
                    )
                    for place in range(GROUP)
                ),
            ],
            outputs=outputs(candidates_as_list=False),
        )

    @classmethod
    def check_lazy_status(
        cls, session: list[Any], judge: list[Any], first: list[int], **given: list[Any] | None
    ) -> list[str]:
        """Count in what has come, and ask for the next attempt unless it is time to stop."""
        run, number = _run(session), first[0]
        scorer = one(judge, "scorer")
        if not isinstance(scorer, Scorer):
            raise BadInput(
                "a scorer (LC_SCORER)", type(scorer).__name__, "Connect one of Latent Critic's scorer nodes."
            )
        run.state.policy.check(scorer.spec)
        _take(run, number, given)
        wanted = run.begin_next()
        name = "" if wanted is None else lazy_name(wanted - number)
        return [name] if name in given else []

    @classmethod
    def execute(
        cls,
        session: list[Any],
        judge: list[Any],
        start: list[Any],
        first: list[int],
        winner: list[Any] | None = None,
        **given: list[Any] | None,
    ) -> io.NodeOutput:
        """Go on with another group, or end."""
        run = _run(session)
        _take(run, first[0], given)
        if run.begin_next() is not None:
            return next_group_graph(run)
        if winner:
            run.restore(winner[0])
        elif (seed := run.forgotten_best) is not None:
            return again_graph(run, seed)
        (*results, log), shown = run.results(start)
        return io.NodeOutput(*results, json.dumps(log, ensure_ascii=False), ui=shown)


def _run(session: list[Any]) -> Run:
    (run,) = session
    return run


def _take(run: Run, first: int, given: dict[str, list[Any] | None]) -> None:
    """Count in the attempts that have come, in their order."""
    for place in range(GROUP):
        found = one(given.get(lazy_name(place)), "an attempt")
        if isinstance(found, JudgedAttempt):
            run.take(first + place, found)


class RerollAttempt(io.ComfyNode):
    """Scores what one attempt sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [
            io.Image.Input("new_images", tooltip="The images of the attempt."),
            io.Latent.Input("new_latents", tooltip="Their latents, one LATENT for each sampling."),
            io.Conditioning.Input("positive", tooltip="What they were sampled with, for the history of scores."),
            CallsSocket.Input("calls", tooltip="The counter of each model that they were sampled with."),
            ScorerSocket.Input("scorer", tooltip="The scorer that judges the attempts."),
            attempt_seed(),
        ]
        return attempt_schema(JUDGED, "Reroll Attempt", inputs)

    @classmethod
    def execute(
        cls,
        new_images: Sequence[Any],
        new_latents: Sequence[Any],
        positive: Sequence[Any],
        calls: Sequence[Any],
        scorer: Sequence[Any],
        seed: Sequence[int],
    ) -> io.NodeOutput:
        """Score, and keep what the step needs."""
        spent = calls_of(calls, len(new_latents))
        return io.NodeOutput(judged(new_images, new_latents, positive, spent, one(scorer, "scorer"), seed[0]))


class CountCalls(io.ComfyNode):
    """MODEL → the same model with a counter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return inner_schema(
            COUNTER,
            "Count Denoiser Calls",
            inputs=[io.Model.Input("model", tooltip="The model to sample with.")],
            outputs=[
                io.Model.Output("counted", "model", "The same model."),
                CallsSocket.Output("calls", "calls", "Counts how often each sampling calls it."),
            ],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Clone the model; the clone shares the weights."""
        return io.NodeOutput(*count_calls(model))
