"""What nodes that score latents share: their outputs, and the batch cut into the kept latents and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.records import ScoreBatch
from ..core.selection.policy import Policy, Selection, select
from ..core.selection.report import why_empty
from ._inputs import one
from ._latents import Latents, latents_at_door
from ._show import result_ui
from ._sockets import ScoresSocket


def keep_input() -> io.Input:
    """How many latents come out of the first output."""
    return io.Int.Input(
        "keep", default=1, min=1, max=4096, tooltip="How many latents to keep, best first: only these need decoding."
    )


def latent_outputs() -> list[io.Output]:
    """Latents cut in two, and the scores in every form."""
    return [
        io.Latent.Output("best_latents", "best latents", "The kept latents, best first.", is_output_list=True),
        io.Latent.Output("rest_latents", "rest latents", "All other latents, best first.", is_output_list=True),
        ScoresSocket.Output("scores", "scores", "The scores of all latents, in the order of the batch."),
        io.Float.Output("best_score", "best score", "The score of the best latent."),
        io.Int.Output("best_index", "best index", "The place of the best latent in the batch, from 0."),
        io.Boolean.Output("all_scored", "all scored", "Whether every latent got a score."),
        io.String.Output("report", "report", "Rank, index, score, seed and reason of every latent, as text."),
    ]


def latents_given(latents: Sequence[Any]) -> tuple[Latents, int]:
    """LATENT input of any length, checked, and how many latents it holds.

    Raises:
        BadInput: no latents, or something else.
    """
    sized = [latent for latent in latents if isinstance(latent, dict) and hasattr(latent.get("samples"), "shape")]
    count = sum(len(latent["samples"]) for latent in sized)
    found = latents_at_door(latents, count)
    if found is None or not count:
        raise BadInput("at least one latent", "none", "Connect the sampler's LATENT output.")
    return found, count


def joined(batches: Sequence[ScoreBatch]) -> ScoreBatch:
    """Scores of several dicts of latents as those of one batch: places count on. One without a scale leaves none."""
    scores, start = [], 0
    for batch in batches:
        scores += [replace(score, index=start + score.index) for score in batch]
        start += len(batch)
    spec = next((batch.spec for batch in batches if not batch.spec.calibrated), batches[0].spec)
    return ScoreBatch(spec, tuple(scores))


def latent_result(latents: Latents, batch: ScoreBatch, keep: Sequence[int], hint: str = "") -> io.NodeOutput:
    """Keep the best, show the report."""
    count = one(keep, "keep")
    if count < 1:
        raise BadInput("keep of at least 1", str(count), "Raise it: this node always hands on the best latent.")
    selection = select(batch, Policy(top_k=count))
    shown = result_ui(batch, selection, hint)
    return io.NodeOutput(
        _side(latents, selection.kept_best_first, why_empty(batch, selection, "kept")),
        _side(latents, selection.rejected_best_first, why_empty(batch, selection, "rejected")),
        batch,
        *_best(batch, selection),
        all(score.ok for score in batch),
        shown["text"][0],
        ui=shown,
    )


def _side(latents: Latents, places: Sequence[int], why: str | None) -> list[Any]:
    return latents.take(places) or [ExecutionBlocker(why)]


def _best(batch: ScoreBatch, selection: Selection) -> tuple[Any, Any]:
    if not selection.kept:
        blocked = ExecutionBlocker(why_empty(batch, selection, "kept"))
        return blocked, blocked
    winner = batch[selection.kept_best_first[0]]
    return winner.value, winner.index
