"""Fit Head's widgets, and the settings of hyperfeatures that they mean."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.guidance.options import GuidanceOptions, place_levels, usual_zeta2
from ..core.methods.hyperfeature_options import HyperfeatureOptions

READ = ("guided path", "single level")
#: Which terms guide, by the words of the widget.
TERMS = {"both": (True, True), "measurement": (True, False), "perceptual": (False, True), "none": (False, False)}


def hyperfeature_options(read: str, levels: int, guidance: str, psi: str, size: int) -> HyperfeatureOptions:
    """The settings that these widgets mean; strengths are the library's own."""
    usual = GuidanceOptions()
    measured, perceived = TERMS[guidance]
    return HyperfeatureOptions(
        kind="guided_path" if read == READ[0] else "single_level",
        guidance=GuidanceOptions(
            timesteps=place_levels(levels),
            zeta1=usual.zeta1 if measured else 0.0,
            zeta2=usual_zeta2(psi) if perceived else 0.0,
        ),
        psi=psi,
        side=size or None,
    )


def picture_inputs() -> list[Any]:
    """What the head is fitted to, and how it is called."""
    return [
        io.Image.Input(
            "images",
            optional=True,
            tooltip="The images: a batch, or a list of any sizes. With ratings dozens at least; without "
            "ratings good ones, a dozen or more.",
        ),
        io.String.Input("name", default="my model", tooltip="Name of the head's file in models/quality_heads."),
        io.String.Input(
            "ratings",
            multiline=True,
            default="",
            tooltip="Your ratings of the images from 0 (bad) to 100 (good), in their order, parted by spaces, "
            "commas or lines. Empty: fit without ratings.",
        ),
        io.String.Input(
            "ratings_file",
            default="",
            tooltip="In place of images and ratings: a CSV file with path, rating from 0 to 100 and maybe a "
            "content group in each row. Paths are relative to the file.",
        ),
    ]


def reading_inputs() -> list[Any]:
    """How the pictures are read, and by what the features become a score."""
    return [
        io.Combo.Input(
            "read",
            options=list(READ),
            default=READ[0],
            tooltip="guided path: LGDM's way, guided by the image. single level: each noise level by itself; "
            "many times faster.",
        ),
        io.Int.Input(
            "levels", default=3, min=1, max=20, tooltip="How many low noise levels are read. Each costs time."
        ),
        io.Combo.Input(
            "guidance",
            options=list(TERMS),
            default="both",
            tooltip="What guides the path. Each term costs a decoder forward and backward per level.",
        ),
        io.Combo.Input(
            "psi",
            options=["judge", "ldm", "latent", "lpips", "dists"],
            default="judge",
            tooltip="Features of the perceptual term. judge ships with this pack; ldm is the loaded model's "
            "own; lpips and dists need weights in torchvision's cache.",
        ),
        io.Int.Input(
            "size",
            default=0,
            min=0,
            max=4096,
            step=64,
            tooltip="Side of the crops, and of the whole image's area. 0 is the size that the model was "
            "trained at. Less is faster, and further from what the model knows.",
        ),
        io.Combo.Input(
            "head",
            options=["ridge", "kernel", "mlp"],
            default="ridge",
            tooltip="ridge is linear and can be shown as a heat map; kernel and mlp need hundreds of ratings.",
        ),
    ]
