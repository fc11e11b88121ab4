"""Score Report: scores as text on the node, and as a table for other programs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.export import to_csv, to_jsonl
from ..core.selection.report import report
from ._inputs import one
from ._scoring import merged_scores
from ._show import result_ui
from ._sockets import CATEGORY, ScoresSocket


class ScoreReport(io.ComfyNode):
    """Scores → text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticScoreReport",
            display_name="Score Report",
            category=CATEGORY,
            description="Writes scores out: rank, index, score, seed and reason of every image, what the numbers mean "
            "and what the scorer does not see.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                ScoresSocket.Input("scores", tooltip="The scores to report, from any Latent Critic node."),
                io.Combo.Input(
                    "form",
                    options=["text", "csv", "jsonl"],
                    default="text",
                    tooltip="text for people, csv or jsonl (one JSON object a line) for other programs.",
                ),
            ],
            outputs=[
                io.String.Output("report", "report", "The report in the chosen form."),
                io.Float.Output("best_score", "best score", "The best score."),
                io.Float.Output("worst_score", "worst score", "The worst score."),
                io.Int.Output("count", "count", "How many images the scores are of."),
            ],
        )

    @classmethod
    def execute(cls, scores: list[Any], form: list[str]) -> io.NodeOutput:
        """Write the report."""
        batch = merged_scores(scores)
        if not batch:
            raise BadInput("scores of at least one image", "none", "Check the node that gives the scores.")
        writers = {"text": report, "csv": to_csv, "jsonl": to_jsonl}
        text = writers[one(form, "form")](batch)
        ordered = [batch[place].value for place in batch.ranking() if batch[place].ok]
        nothing = ExecutionBlocker(f"No image has a score. The first one: {batch[0].reason}")
        best, worst = (ordered[0], ordered[-1]) if ordered else (nothing, nothing)
        return io.NodeOutput(text, best, worst, len(batch), ui={**result_ui(batch), "text": [text]})
