"""Pick Best Images: the one node that a beginner needs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.selection.policy import Policy, Selection, select
from ..core.selection.report import why_empty
from ._common_inputs import companion_inputs, images_input, scoring_inputs, seeds_input
from ._companions import companions_at_door
from ._inputs import one
from ._scoring import scores_for
from ._show import result_ui, thumbnails
from ._sockets import CATEGORY, ScoresSocket


class PickBestImages(io.ComfyNode):
    """Scores a batch and hands on the best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticPickBest",
            display_name="Pick Best Images",
            category=CATEGORY,
            description="Scores the images of a batch and hands on the best ones. Connect nothing but images and the "
            "built-in judge decides. It was trained on ratings of photographs and sees sharpness, noise, exposure and "
            "artefacts; it does not see wrong hands or faces, nor whether the image fits the prompt.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                images_input(),
                io.Int.Input("keep", default=1, min=1, max=4096, tooltip="How many images to keep, best first."),
                *scoring_inputs(),
                *companion_inputs(),
                seeds_input(),
            ],
            outputs=[
                io.Image.Output("best", "best", "The kept images, best first.", is_output_list=True),
                io.Image.Output("rest", "rest", "All other images, best first.", is_output_list=True),
                io.Latent.Output("best_latents", "best latents", "Latents of the kept images.", is_output_list=True),
                io.Latent.Output("rest_latents", "rest latents", "Latents of the others.", is_output_list=True),
                io.Mask.Output("best_masks", "best masks", "Masks of the kept images.", is_output_list=True),
                io.String.Output("best_prompts", "best prompts", "Prompts of the kept images.", is_output_list=True),
                io.Float.Output("best_score", "best score", "The score of the best image."),
                io.Int.Output("best_index", "best index", "The place of the best image in the batch, from 0."),
                ScoresSocket.Output("all_scores", "scores", "The scores of all images, in the order of the batch."),
                io.String.Output("report", "report", "Rank, index, score, seed and reason of every image, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        keep: list[int],
        scorer: list[Any] | None = None,
        scores: list[Any] | None = None,
        latents: list[Any] | None = None,
        masks: list[Any] | None = None,
        prompts: list[Any] | None = None,
        seeds: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score, keep the best, show them."""
        together = companions_at_door(images, latents, masks, prompts)
        count = one(keep, "keep")
        if count < 1:
            raise BadInput("keep of at least 1", str(count), "Raise it: this node always hands on the best image.")
        batch, hint = scores_for(together.images, scorer, scores, together.prompts, seeds)
        selection = select(batch, Policy(top_k=count))
        best = together.side(selection.kept_best_first, why_empty(batch, selection, "kept"))
        rest = together.side(selection.rejected_best_first, why_empty(batch, selection, "rejected"))
        shown = {**result_ui(batch, selection, hint), "images": thumbnails(together.images, batch, selection)}
        score, index = _best(batch, selection)
        return io.NodeOutput(
            best.images,
            rest.images,
            best.latents,
            rest.latents,
            best.masks,
            best.prompts,
            score,
            index,
            batch,
            shown["text"][0],
            ui=shown,
        )


def _best(batch: Any, selection: Selection) -> tuple[Any, Any]:
    """Score and original index of the winner, or blockers when no image has a score."""
    if not selection.kept:
        blocked = ExecutionBlocker(why_empty(batch, selection, "kept"))
        return blocked, blocked
    winner = batch[selection.kept_best_first[0]]
    return winner.value, winner.index
