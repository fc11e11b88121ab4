"""Score Images: numbers for a batch, used by any number of nodes after it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ._common_inputs import images_input, prompts_input, scoring_inputs, seeds_input
from ._inputs import images_at_door, texts_at_door
from ._scoring import scores_for, with_names
from ._show import result_ui, thumbnails
from ._sockets import CATEGORY, ScoresSocket


class ScoreImages(io.ComfyNode):
    """Scores every image and rejects none."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            description="Scores every image and shows the scores under the thumbnails, best first. Hand the scores to "
            "Reject Low Quality, Contact Sheet, Score Report or Save Scored Image.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                images_input(),
                scoring_inputs()[0],
                prompts_input(),
                seeds_input(),
                io.String.Input(
                    "names",
                    optional=True,
                    force_input=True,
                    tooltip="Names for the report, one per image, such as the file names of Load Images From Folder.",
                ),
            ],
            outputs=[
                ScoresSocket.Output("scores", "scores", "The scores of all images, in the order of the batch."),
                io.Float.Output("best_score", "best score", "The score of the best image."),
                io.Float.Output("mean_score", "mean score", "The mean over all images that have a score."),
                io.Int.Output("best_index", "best index", "The place of the best image in the batch, from 0."),
                io.Int.Output("scored_count", "scored count", "How many images got a score."),
                io.Boolean.Output("all_scored", "all scored", "Whether every image got a score."),
                io.String.Output("report", "report", "Rank, index, score, seed and reason of every image, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        scorer: list[Any] | None = None,
        prompts: list[Any] | None = None,
        seeds: list[Any] | None = None,
        names: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score and show."""
        stack = images_at_door(images)
        names = texts_at_door(names, len(stack), "names")
        batch, hint = scores_for(stack, scorer, None, texts_at_door(prompts, len(stack)), seeds)
        batch = with_names(batch, names)
        shown = {**result_ui(batch, None, hint), "images": thumbnails(stack, batch)}
        values = [value for value in batch.values() if value is not None]
        numbers: tuple[Any, Any, Any]
        if values:
            winner = batch[batch.ranking()[0]]
            numbers = winner.value, sum(values) / len(values), winner.index
        else:
            nothing = ExecutionBlocker(f"No image got a score. The first one: {batch[0].reason}")
            numbers = nothing, nothing, nothing
        return io.NodeOutput(batch, *numbers, len(values), len(values) == len(batch), shown["text"][0], ui=shown)
