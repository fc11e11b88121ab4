"""Gate: what is expensive runs only for what is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.records import Score, ScoreBatch, ScoreSpec
from ..core.selection.filtering import one_per_image
from ..core.selection.policy import Policy, Selection, select
from ..core.selection.report import report
from ._inputs import one
from ._latents import Latents
from ._scoring import merged_scores
from ._show import result_ui
from ._sockets import CATEGORY_MAKING, ScoresSocket

#: What plain numbers mean: higher is better; the user knows their scale.
_NUMBERS = ScoreSpec("numbers", calibrated_on="whatever gave these numbers")


class Gate(io.ComfyNode):
    """A lazy switch that follows scores."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticGate",
            display_name="Gate",
            category=CATEGORY_MAKING,
            description="Lets through what scores well enough. Connect the end of an expensive branch to value: it "
            "runs only when something passes. Or put the gate in front of the branch: it then runs only for the items "
            "that pass. What comes out otherwise is up to you; with nothing there, the branch stops and says why.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.AnyType.Input(
                    "value",
                    lazy=True,
                    tooltip="What is let through: one thing for all scores, or one for each (a batch or a list). Not "
                    "computed at all when nothing passes.",
                ),
                io.Float.Input(
                    "threshold",
                    default=50.0,
                    min=-1_000_000.0,
                    max=1_000_000.0,
                    step=0.5,
                    tooltip="Let through what scores at least this (on scales where lower is better: at most this).",
                ),
                ScoresSocket.Input(
                    "scores", optional=True, tooltip="Scores of a Latent Critic node. Connect either these or score."
                ),
                io.Float.Input(
                    "score",
                    optional=True,
                    force_input=True,
                    tooltip="Plain numbers, higher is better: one or a list, such as the score of Reroll Until Good.",
                ),
                io.AnyType.Input(
                    "otherwise",
                    optional=True,
                    lazy=True,
                    tooltip="What comes out in place of what does not pass. Not computed when everything passes.",
                ),
            ],
            outputs=[
                io.AnyType.Output(
                    "out", "out", "What passed, with otherwise in the other places.", is_output_list=True
                ),
                io.Boolean.Output("passed", "passed", "For each score whether it passed.", is_output_list=True),
                io.Boolean.Output("any_passed", "any passed", "Whether anything passed."),
                io.String.Output("report", "report", "Every score with the reason why it passed or not, as text."),
            ],
        )

    @classmethod
    def check_lazy_status(
        cls,
        threshold: list[float],
        scores: list[Any] | None = None,
        score: list[Any] | None = None,
        **connected: Any,
    ) -> list[str]:
        """Ask for value when something passes, and for otherwise when something does not."""
        _batch, chosen = _decide(threshold, scores, score)
        wanted = {"value": chosen.kept, "otherwise": chosen.rejected}
        return [name for name in connected if wanted[name]]

    @classmethod
    def execute(
        cls,
        threshold: list[float],
        value: list[Any] | None = None,
        scores: list[Any] | None = None,
        score: list[Any] | None = None,
        otherwise: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Put what passed and what did not together again."""
        batch, chosen = _decide(threshold, scores, score)
        out = _merge(chosen, value, otherwise) or [ExecutionBlocker(_why_closed(chosen))]
        passed = [place in set(chosen.kept) for place in range(len(batch))]
        shown = result_ui(batch, chosen)
        return io.NodeOutput(out, passed, bool(chosen.kept), report(batch, chosen), ui=shown)


def _decide(
    threshold: list[float], scores: Sequence[Any] | None, score: Sequence[Any] | None
) -> tuple[ScoreBatch, Selection]:
    given = merged_scores(scores)
    if (given is None) == (score is None):
        got = "neither" if given is None else "both"
        raise BadInput("scores or score", got, "Connect one of the two: the gate follows it.")
    if given is None:
        numbers = [Score.of(float(number), place) for place, number in enumerate(score or ())]
        given = ScoreBatch(_NUMBERS, tuple(numbers))
    return given, select(given, Policy(threshold=one(threshold, "threshold")))


def _why_closed(chosen: Selection, most: int = 4) -> str:
    reasons = "; ".join(chosen.why[place] for place in chosen.ranking[:most])
    return f"Nothing passed the gate: {reasons}{' …' if len(chosen.why) > most else ''}."


def _merge(chosen: Selection, value: Sequence[Any] | None, otherwise: Sequence[Any] | None) -> list[Any]:
    """The items of both sides in the order of the scores; a side that is not connected leaves nothing."""
    count, kept = len(chosen.why), set(chosen.kept)
    if not chosen.rejected and value:
        return list(value)  # as it came: a batch stays a batch
    if not kept:
        return list(otherwise or ())
    if count > 1 and _single(value, count) and not otherwise:
        return list(value or ())
    good = _items(value, count, "value") if kept else []
    rest = _items(otherwise, count, "otherwise") if otherwise else []
    return [(good if place in kept else rest)[place] for place in range(count) if place in kept or rest]


def _single(things: Sequence[Any] | None, count: int) -> bool:
    """Whether this is one thing for all scores."""
    return things is not None and len(things) == 1 and _rows(things[0]) != count


def _rows(thing: Any) -> int | None:
    """How many items a batch holds; ``None`` for what is no batch."""
    if isinstance(thing, torch.Tensor):
        return len(thing) if thing.ndim else None
    if isinstance(thing, dict) and hasattr(thing.get("samples"), "shape"):
        return len(thing["samples"])
    return None


def _items(things: Sequence[Any] | None, count: int, name: str) -> list[Any]:
    """One item per score: from a list, from a batch, or the same thing for all."""
    found = list(things or ())
    if len(found) == 1 and count > 1 and _rows(found[0]) == count:
        batch = found[0]
        if isinstance(batch, torch.Tensor):
            return [batch[place : place + 1] for place in range(count)]
        return [Latents((batch,)).take([place])[0] for place in range(count)]
    return one_per_image(found, count, f"items in {name}")
