"""Restore For Comparison: what restoration by diffusion makes of an image, and what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.methods.diff_v2_iqa_make import restorer_file
from ..core.restoration.schedule import FEWEST, PUBLISHED_STEPS
from ..core.restoration.shared import SharedOptions, SharedRestorer
from ..core.restoration.sr3 import usual_options
from ..core.restoration.weights import load_restorer
from ._common_inputs import images_input
from ._heads import loaded_backbone
from ._inputs import Stack, images_at_door, one
from ._loaded import EVERY_FAMILY
from ._restorers import PlacedRestorer, cached, restorer_choices, restorer_path
from ._scoring import watch_in_comfyui
from ._show import rgb
from ._sockets import CATEGORY_ADVANCED
from ._stamps import stamp

if TYPE_CHECKING:
    from ..core.methods.contract import Watch
    from ..core.restoration.contract import Restorer

_HUNDREDTHS = 100


class RestoreForComparison(io.ComfyNode):
    """Images, and perhaps the loaded model → restored images, two steps on the way there, what changed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentCriticRestore",
            display_name="Restore For Comparison",
            category=CATEGORY_ADVANCED,
            description="Restores images by diffusion to compare them with themselves: much change is a sign of damage "
            "that the restorer knows. Without a model a small network of its own restores; with MODEL, CLIP and VAE "
            "the model that you have already loaded does. It is no upscaler, and what it paints is a guess.",
            is_input_list=True,
            inputs=_schema_inputs(restorer_choices()),
            outputs=_schema_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, restorer: list[str] | None = None, **rest: Any) -> str:
        """Changes when the restorer's file is written again; a linked choice comes as ``None``."""
        return stamp(lambda: restorer_path(restorer[0]) if restorer else None)

    @classmethod
    def execute(
        cls,
        images: list[Any],
        restorer: list[str],
        steps: list[int],
        hold: list[float],
        gain: list[float],
        seed: list[int],
        model: list[Any] | None = None,
        clip: list[Any] | None = None,
        vae: list[Any] | None = None,
    ) -> io.NodeOutput:
        """Restore one image after the other, so that any sizes go; one without a restoration is blocked."""
        stack = images_at_door(images)
        parts = tuple(one(part, name) for part, name in ((model, "model"), (clip, "clip"), (vae, "vae")))
        drawn = one(seed, "seed", 0)
        if any(part is not None for part in (model, clip, vae)):
            options = SharedOptions(measurement=one(hold, "hold"), seed=drawn)
            made: Restorer = SharedRestorer(loaded_backbone(*parts), options)
        else:
            made = _pixel_restorer(one(restorer, "restorer"), one(steps, "steps", 0), drawn)
        found = _restored(stack, cached(made), one(gain, "gain", 4.0))
        return io.NodeOutput(
            *_outputs(stack, found), _report(made.name, found), ui={"text": [_report(made.name, found)]}
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """One image: d0, d1, d2 and the difference [1, H, W, 3], or why there are none."""

    pictures: tuple[torch.Tensor, ...]
    change: float
    levels: tuple[float, float, float]
    calls: int
    reason: str | None


def _pixel_restorer(choice: str, steps: int, seed: int) -> PlacedRestorer:
    path = restorer_file(restorer_path(choice))
    options = replace(usual_options(load_restorer(path)[1]), seed=seed)
    if steps and steps < FEWEST:
        raise BadInput(f"{FEWEST} to {PUBLISHED_STEPS} steps, or 0", str(steps), "0 takes the file's own.")
    return PlacedRestorer(path, replace(options, steps=steps) if steps else options)


def _restored(stack: Stack, restorer: Restorer, gain: float) -> list[_Row]:
    watch, rows = watch_in_comfyui(_HUNDREDTHS * len(stack)), []
    for place, image in enumerate(stack.channels_first()):
        picture = rgb(image).float()[None]
        made = restorer.restore(picture, watch=_part(watch, place, len(stack)))
        watch(_HUNDREDTHS * (place + 1), _HUNDREDTHS * len(stack))  # one out of the cache tells nothing
        away = (made.images[0, 0] - picture[0].to(made.images)).abs()
        shown = (gain * away.mean(0, keepdim=True)).clamp(0.0, 1.0).expand(3, -1, -1)
        pictures = tuple(view.movedim(0, -1)[None].contiguous() for view in (*made.images[0], shown))
        rows.append(_Row(pictures, 100.0 * float(away.mean()), made.noise_levels, made.calls[0], made.reasons[0]))
    return rows


def _part(watch: Watch, place: int, count: int) -> Watch:
    """The watch of one image among several."""
    return lambda done, total: watch(_HUNDREDTHS * place + _HUNDREDTHS * done // max(1, total), _HUNDREDTHS * count)


def _outputs(stack: Stack, rows: Sequence[_Row]) -> list[list[Any]]:
    """The columns, in the form in which the images came where all could be restored."""
    columns: list[list[Any]] = []
    for column in range(4):
        if any(row.reason for row in rows):
            columns.append([ExecutionBlocker(row.reason) if row.reason else row.pictures[column] for row in rows])
        else:
            pictures = Stack(tuple(row.pictures[column] for row in rows), stack.batched)
            columns.append(pictures.take(range(len(rows))))
    columns.append([ExecutionBlocker(row.reason) if row.reason else row.change for row in rows])
    return columns


def _report(name: str, rows: Sequence[_Row]) -> str:
    _, middle, high = rows[0].levels
    how = "the loaded model" if name == SharedRestorer.name else "a pixel-space restorer"
    lines = [f"Restored with {how}; noise in the two states on the way: {middle:.2f}, {high:.2f}."]
    for place, row in enumerate(rows):
        if row.reason:
            lines.append(f"image {place}: not restored. {row.reason}")
        else:
            cost = f"{row.calls} denoiser calls" if row.calls else "kept from before"
            lines.append(f"image {place}: changed by {row.change:.2f} % of the range of pixels; {cost}")
    return "\n".join(lines)


def _schema_inputs(choices: list[str]) -> list[io.Input]:
    return [
        images_input(),
        io.Combo.Input(
            "restorer",
            options=choices,
            default=choices[0],
            tooltip="The pixel-space restorer, from the folder models/quality_restorers: a .safetensors of "
            "latent-critic train restorer. Not used when a model is connected.",
        ),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=PUBLISHED_STEPS,
            tooltip=f"Denoiser calls of the pixel-space restorer, {FEWEST} to {PUBLISHED_STEPS}. 0: those that "
            "its file names.",
        ),
        io.Float.Input(
            "hold",
            default=SharedOptions().measurement,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How strongly the loaded model is held to the image. 0 lets it paint as it likes.",
        ),
        io.Float.Input(
            "gain",
            default=4.0,
            min=0.1,
            max=100.0,
            step=0.1,
            tooltip="What the difference is multiplied by, so that small ones can be seen.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**31 - 1,
            tooltip="Of the noise. The same for every image, whatever its place in the batch.",
        ),
        io.Model.Input("model", optional=True, tooltip=f"Restore with this diffusion model instead: {EVERY_FAMILY}."),
        io.Clip.Input("clip", optional=True, tooltip="The text encoder of the same checkpoint."),
        io.Vae.Input("vae", optional=True, tooltip="The VAE of the same checkpoint."),
    ]


def _schema_outputs() -> list[io.Output]:
    return [
        io.Image.Output("restored", "restored", "The restored images.", is_output_list=True),
        io.Image.Output(
            "less_noisy",
            "less noisy",
            "The state on the way there that still holds a little noise.",
            is_output_list=True,
        ),
        io.Image.Output("noisier", "noisier", "An earlier state, which holds more.", is_output_list=True),
        io.Image.Output(
            "differences",
            "differences",
            "How far restoration moved each pixel, times the gain: bright where much changed.",
            is_output_list=True,
        ),
        io.Float.Output(
            "changes",
            "changes",
            "The mean difference of each image, in percent of the range of pixels.",
            is_output_list=True,
        ),
        io.String.Output("report", "report", "Every image's change, the noise levels and the cost, as text."),
    ]
