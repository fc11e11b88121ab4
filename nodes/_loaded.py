"""The three parts of a checkpoint, as nodes on the loaded model take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..core.errors import BadInput
from ..core.methods.tiled import Tiled

if TYPE_CHECKING:
    from ..core.methods.contract import Scorer

RESIZE, TILES = "resize", "tiles"

_UNETS = "SD 1.5, SD 2.x, SDXL"
#: What a scorer that asks for nothing but taps runs on.
EVERY_FAMILY = f"{_UNETS}, SD3, Flux, Lumina 2, Z-Image, Qwen-Image, Wan 2.1"


def loaded_inputs(families: str = _UNETS) -> list[io.Input]:
    """MODEL, CLIP and VAE."""
    return [
        io.Model.Input("model", tooltip=f"The diffusion model, with its LoRAs and patches: {families}."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
        io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
    ]


def large_images_input() -> io.Input:
    """How pictures larger than the model's own size are looked at; last of a node's widgets, so that workflows fit."""
    return io.Combo.Input(
        "large_images",
        options=[RESIZE, TILES],
        default=RESIZE,
        optional=True,
        tooltip="Images larger than the model's own size. resize: the whole image made smaller, which hides fine "
        "faults. tiles: overlapping tiles at their own scale, each scored as an image, and the mean counts; an 8k "
        "image costs as much as some hundred small ones.",
    )


def for_large_images(scorer: Scorer, choice: str) -> Scorer:
    """The scorer, under the size policy of that choice.

    Raises:
        BadInput: tiles for a scorer with a size policy or a mask of its own.
    """
    return Tiled(scorer) if choice == TILES else scorer


def need_parts(model: Any, clip: Any, vae: Any) -> None:
    """A checkpoint without one of its parts hands on nothing in its place.

    Raises:
        BadInput: one is missing.
    """
    for name, part in (("MODEL", model), ("CLIP", clip), ("VAE", vae)):
        if part is None:
            raise BadInput(f"a {name}", "none", f"This checkpoint holds no {name}; load it with a node of its own.")
