"""Quality Heat Map: where a picture is good or bad, by the scorer's own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image

from ..core.errors import BadInput
from ..core.heatmap import HeatMap, badness, overlay
from ..core.methods.contract import MapScorer, Watch
from ._common_inputs import images_input
from ._inputs import images_at_door, one
from ._judge import builtin_judge
from ._scoring import watch_in_comfyui
from ._show import rgb, save_temporary
from ._sockets import CATEGORY_ADVANCED, ScorerSocket

_HUNDREDTHS = 100


class QualityHeatMap(io.ComfyNode):
    """Images + scorer → overlay, map, the worst place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticHeatMap",
            display_name="Quality Heat Map",
            category=CATEGORY_ADVANCED,
            description="Shows where an image is good or bad: what each place adds to its score, exactly, by the "
            "scorer's own arithmetic. Connect nothing but images for the built-in judge, or an LGDM Scorer with a "
            "ridge head. The mask is 1 where it is worst, ready for an inpainting pass.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                images_input(),
                ScorerSocket.Input(
                    "scorer",
                    optional=True,
                    tooltip="A scorer that knows maps: Quality Judge, or LGDM Scorer with a ridge head. Without one "
                    "the built-in judge is used.",
                ),
                io.Float.Input(
                    "worst_share",
                    default=0.1,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the image the box around the worst place covers.",
                ),
                io.Float.Input(
                    "opacity", default=0.6, min=0.0, max=1.0, step=0.05, tooltip="Of the colours over the image."
                ),
                io.Int.Input(
                    "cells",
                    default=20,
                    min=2,
                    max=256,
                    tooltip="How fine the map is: cells along the image's shorter side. Finer maps are noisier.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "overlays",
                    "overlays",
                    "The image in grey under the map's colours, with a box around the worst place and the colours' "
                    "scores below. Bright is bad.",
                    is_output_list=True,
                ),
                io.Mask.Output(
                    "maps",
                    "maps",
                    "Badness in numbers: 0 where it is best, 1 where it is worst, on the score's own scale (with an "
                    "open scale, over the map's range).",
                    is_output_list=True,
                ),
                io.Image.Output("worst_places", "worst places", "The worst place, cut out.", is_output_list=True),
                io.Int.Output("left", "left", "Left border of the worst place, in pixels.", is_output_list=True),
                io.Int.Output("top", "top", "Its upper border.", is_output_list=True),
                io.Int.Output("width", "width", "Its width.", is_output_list=True),
                io.Int.Output("height", "height", "Its height.", is_output_list=True),
                io.Float.Output("scores", "scores", "The score that the map's parts make up.", is_output_list=True),
                io.String.Output("report", "report", "Score and worst place of every image, as text."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: list[Any],
        worst_share: list[float],
        opacity: list[float],
        cells: list[int],
        scorer: list[Any] | None = None,
    ) -> io.NodeOutput:
        """One map after the other; an image without one is blocked with its reason."""
        stack, chosen = images_at_door(images), one(scorer, "scorer") or builtin_judge()
        if not isinstance(chosen, MapScorer):
            raise BadInput(
                "a scorer that knows maps",
                getattr(getattr(chosen, "spec", None), "name", type(chosen).__name__),
                "Connect Quality Judge or LGDM Scorer, or leave scorer empty.",
            )
        look = _Look(one(worst_share, "worst_share"), one(opacity, "opacity"), one(cells, "cells"))
        watch, rows, shown = watch_in_comfyui(_HUNDREDTHS * len(stack)), [], []
        for place, image in enumerate(stack.channels_first()):
            try:
                found = chosen.heat_map(rgb(image), watch=_part(watch, place, len(stack)))
            except BadInput as error:
                rows.append(((ExecutionBlocker(str(error)),) * 8, f"image {place}: no map. {error}"))
                continue
            values, picture = look.of(rgb(image), found)
            rows.append((values, f"image {place}: {_told(found, values)}"))
            shown.append(picture)
        text = "\n".join([f"Scorer: {chosen.spec.name}. Bright is bad.", *(line for _, line in rows)])
        columns = [list(column) for column in zip(*(values for values, _ in rows), strict=True)]
        return io.NodeOutput(*columns, text, ui={"text": [text], "images": save_temporary(shown)})


@dataclass(frozen=True, slots=True)
class _Look:
    """How maps are shown."""

    share: float
    opacity: float
    cells: int

    def of(self, image: torch.Tensor, found: HeatMap) -> tuple[tuple[Any, ...], Image.Image]:
        """One image's outputs and its picture."""
        picture = overlay(image.cpu(), found, self.opacity, self.share, self.cells)
        left, top, width, height = found.worst(self.share, self.cells)
        values = (
            torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None],
            badness(found, self.cells)[None],
            image[:, top : top + height, left : left + width].movedim(0, -1)[None],
            *(left, top, width, height),
            found.score,
        )
        return values, picture


def _part(watch: Watch, place: int, count: int) -> Watch:
    """The watch of one image among several."""

    def step(done: int, total: int) -> None:
        watch(_HUNDREDTHS * place + _HUNDREDTHS * done // max(1, total), _HUNDREDTHS * count)

    return step


def _told(found: HeatMap, values: tuple[Any, ...]) -> str:
    left, top, width, height = values[3:7]
    local = found.local()
    return (
        f"score {found.score:.3g}; like its worst place all over it would be about {float(local.min()):.3g}, like its "
        f"best {float(local.max()):.3g}. Worst: {width}×{height} pixels at ({left}, {top})."
    )
