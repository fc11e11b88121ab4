"""Contact Sheet: all images on one picture, with their scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..core.contact_sheet import MOST_PIXELS, fitting_cell
from ._common_inputs import images_input, scoring_inputs
from ._inputs import images_at_door, one
from ._scoring import scores_for
from ._show import result_ui, save_temporary, sheet
from ._sockets import CATEGORY, ScoresSocket


class ContactSheet(io.ComfyNode):
    """Images and scores → one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticContactSheet",
            display_name="Contact Sheet",
            category=CATEGORY,
            description="Lays all images out on one picture, with rank and score under each. The images may differ in "
            "size.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                images_input(),
                *scoring_inputs(),
                io.Boolean.Input(
                    "best_first", default=True, tooltip="Sort by score, best first. Off: the order of the batch."
                ),
                io.Int.Input("columns", default=0, min=0, max=64, tooltip="Images in a row. 0 chooses by itself."),
                io.Int.Input(
                    "cell",
                    default=256,
                    min=64,
                    max=1024,
                    step=32,
                    tooltip="Longest side of each image, in pixels. Smaller where the sheet would get too large.",
                ),
            ],
            outputs=[
                io.Image.Output("sheet", "sheet", "The contact sheet, one image."),
                ScoresSocket.Output("sheet_scores", "scores", "The scores of all images, in the order of the batch."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        best_first: list[bool],
        columns: list[int],
        cell: list[int],
        scorer: list[Any] | None = None,
        scores: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Score where needed, and lay out."""
        stack = images_at_door(images)
        wanted, across = one(cell, "cell"), one(columns, "columns") or None
        side = fitting_cell(len(stack), wanted, across)  # raises before anything is scored
        batch, hint = scores_for(stack, scorer, scores)
        if side < wanted:
            small = f"The cells are {side} pixels instead of {wanted}: a sheet holds at most {MOST_PIXELS:,} pixels."
            hint = f"{hint}\n{small}" if hint else small
        order = batch.ranking() if one(best_first, "best_first") else list(range(len(stack)))
        picture = sheet(stack, batch, order, side, across)
        shown = {**result_ui(batch, None, hint), "images": save_temporary([picture])}
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None]
        return io.NodeOutput(pixels, batch, ui=shown)
