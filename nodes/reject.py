"""Reject Low Quality: two branches, what passed and what did not."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.records import ScoreSpec
from ..core.selection.policy import Policy, check_threshold, select
from ..core.selection.report import why_empty
from ._common_inputs import companion_inputs, images_input, scoring_inputs, seeds_input
from ._companions import companions_at_door
from ._inputs import one
from ._scoring import scores_for
from ._show import result_ui, thumbnails
from ._sockets import CATEGORY, ScoresSocket


class RejectLowQuality(io.ComfyNode):
    """Splits a batch by its scores."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticReject",
            display_name="Reject Low Quality",
            category=CATEGORY,
            description="Splits images into kept and rejected ones, with their latents, masks and prompts. Threshold, "
            "top k and percentile must all be passed; the floor then brings back the best, the cap drops the worst. "
            "An empty side is blocked and says why; the rest of the graph goes on.",
            is_input_list=True,
            is_output_node=True,
            inputs=[images_input(), *_rules(), *scoring_inputs(), *companion_inputs(), seeds_input()],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        threshold: list[float],
        top_k: list[int],
        percentile: list[float],
        floor: list[int],
        cap: list[int],
        scorer: list[Any] | None = None,
        scores: list[Any] | None = None,
        latents: list[Any] | None = None,
        masks: list[Any] | None = None,
        prompts: list[Any] | None = None,
        seeds: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score, split, show both sides."""
        together = companions_at_door(images, latents, masks, prompts)
        policy = _policy(threshold, top_k, percentile, floor, cap)
        batch, hint = scores_for(
            together.images, scorer, scores, together.prompts, seeds, check=partial(_check, policy.threshold)
        )
        selection = select(batch, policy)
        sides = []
        for name, places in (("kept", selection.kept), ("rejected", selection.rejected)):
            why = why_empty(batch, selection, name)
            taken = batch.take(places)
            indices = [score.index for score in taken]
            sides.append((together.side(places, why), taken if places else ExecutionBlocker(why), indices, why))
        (kept, kept_scores, kept_at, why_kept), (gone, gone_scores, gone_at, why_gone) = sides
        shown = {**result_ui(batch, selection, hint), "images": thumbnails(together.images, batch, selection)}
        return io.NodeOutput(
            kept.images,
            gone.images,
            kept.latents,
            gone.latents,
            kept.masks,
            gone.masks,
            kept.prompts,
            gone.prompts,
            kept_scores,
            gone_scores,
            kept_at or [ExecutionBlocker(why_kept)],
            gone_at or [ExecutionBlocker(why_gone)],
            len(kept_at),
            bool(kept_at),
            shown["text"][0],
            ui=shown,
        )


def _check(threshold: float | None, spec: ScoreSpec) -> None:
    """Refuse a threshold that such scores cannot be held against, before any image is scored."""
    if threshold is not None:
        check_threshold(spec, threshold, "Set the threshold to -1, which switches it off, and use top k or percentile")


def _rules() -> list[io.Input]:
    return [
        io.Float.Input(
            "threshold",
            default=40.0,
            min=-1.0,
            max=100.0,
            step=0.5,
            tooltip="Keep images that score at least this (on scales where lower is better: at most this). -1 switches "
            "it off. Uncalibrated scorers have no absolute scale and refuse a threshold.",
        ),
        io.Int.Input("top_k", default=0, min=0, max=4096, tooltip="Keep only the best k images. 0 switches it off."),
        io.Float.Input(
            "percentile",
            default=0.0,
            min=0.0,
            max=100.0,
            step=1.0,
            tooltip="Keep the images at or above this percentile of the batch: 75 keeps the best quarter, at least "
            "one. 0 switches it off.",
        ),
        io.Int.Input(
            "floor",
            default=0,
            min=0,
            max=4096,
            tooltip="Keep at least this many, the best ones, even when they fail the rules. Images without a score "
            "never come back.",
        ),
        io.Int.Input("cap", default=0, min=0, max=4096, tooltip="Keep at most this many. 0 means no cap."),
    ]


def _outputs() -> list[io.Output]:
    found: list[io.Output] = []
    for socket, what in (
        (io.Image, "images"),
        (io.Latent, "latents"),
        (io.Mask, "masks"),
        (io.String, "prompts"),
    ):
        for side, passed in (("kept", "passed"), ("rejected", "did not pass")):
            tooltip = f"The {what} that {passed}, in the order of the batch."
            found.append(socket.Output(f"{side}_{what}", f"{side} {what}", tooltip, is_output_list=True))
    return [
        *found,
        ScoresSocket.Output("kept_scores", "kept scores", "Scores of the kept images, with their original indices."),
        ScoresSocket.Output("rejected_scores", "rejected scores", "Scores of the rejected images."),
        io.Int.Output("kept_index", "kept index", "Original places of the kept images.", is_output_list=True),
        io.Int.Output(
            "rejected_index", "rejected index", "Original places of the rejected images.", is_output_list=True
        ),
        io.Int.Output("kept_count", "kept count", "How many images were kept."),
        io.Boolean.Output("any_kept", "any kept", "Whether any image was kept."),
        io.String.Output("report", "report", "Rank, index, score, seed and reason of every image, as text."),
    ]


def _policy(
    threshold: list[float], top_k: list[int], percentile: list[float], floor: list[int], cap: list[int]
) -> Policy:
    """Widgets → policy: the value that switches a rule off becomes ``None``."""
    limit, best, share = one(threshold, "threshold"), one(top_k, "top_k"), one(percentile, "percentile")
    most = one(cap, "cap")
    return Policy(
        threshold=None if limit == -1 else limit,
        top_k=best or None,
        percentile=share or None,
        floor=one(floor, "floor"),
        cap=most or None,
    )
