"""A session's pictures as PNG files: where they lie, how they are saved, and what a saved one says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from PIL import Image, UnidentifiedImageError

from ..core.errors import BadInput
from ..core.export import PNG_KEY, png_text
from ..core.images import to_picture
from ..core.records import Score, ScoreBatch, ScoreSpec
from ..core.selection.session import Known, Picture
from ._history import pixel_hash
from ._inputs import Stack
from ._saving import expand, new_file, write_png
from ._show import rgb

#: The keyword under which a picture of a session carries the hash of its pixels.
PIXELS_KEY = "latent_critic_pixels"


def session_folder(name: str) -> Path:
    """A session's name → its folder inside ComfyUI's output folder.

    Raises:
        BadInput: no name, one that leads elsewhere, or one that no file system takes.
    """
    if "\0" in name:
        raise BadInput("a name for the session", repr(name), "Take the NUL character out of it.")
    output = Path(folder_paths.get_output_directory())
    folder, whole = Path(output, name.strip()).resolve(), output.resolve()
    if folder == whole or not folder.is_relative_to(whole):
        raise BadInput("a name for the session", repr(name), "Write a folder name inside ComfyUI's output folder.")
    return output / folder.relative_to(whole)


def pictures_of(images: Stack, batch: ScoreBatch, texts: Mapping[str, str]) -> list[Picture]:
    """Images with their scores, ready to join a session; ``texts`` go into every file."""
    return [_picture(images, batch, place, texts) for place in range(len(images))]


def _picture(images: Stack, batch: ScoreBatch, place: int, texts: Mapping[str, str]) -> Picture:
    pixels = pixel_hash(images.singles[place])

    def save(folder: Path, number: int) -> Path:
        comfy.model_management.throw_exception_if_processing_interrupted()
        own = {**texts, **png_text(batch.take([place]), 0), PIXELS_KEY: pixels}
        with new_file(folder, expand("%score%", batch[place], 0, batch.spec.scale), number) as (temporary, final):
            write_png(temporary, _visible(images.channels_first()[place]), own)
        return final

    return Picture(batch[place], pixels, save)


def _visible(image: torch.Tensor) -> Image.Image:
    """[C, H, W] with 1 to 4 channels → a picture; the last of 2 or 4 is its alpha.

    NaN and infinite pixels become transparent, because a file would show them black.
    """
    whole = torch.isfinite(image).all(dim=0)
    picture, has_alpha = to_picture(rgb(image)), image.shape[0] in (2, 4)
    if has_alpha or not bool(whole.all()):
        alpha = torch.where(whole, image[-1] if has_alpha else 1.0, 0.0)
        picture.putalpha(to_picture(alpha.expand(3, -1, -1)).getchannel(0))
    return picture


def read_saved(path: Path) -> Known | None:
    """What a picture of a session says of itself; ``None`` for any other file.

    Raises:
        OSError: the file cannot be read just now.
    """
    try:
        with Image.open(path) as picture:
            texts: Mapping[str, Any] = picture.info  # as far as the pixels: these are not read
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None
    try:
        said = json.loads(texts[PNG_KEY])
        spec = ScoreSpec.from_dict(said["spec"])
        score = Score(said["score"], 0, said["reason"], said["seed"])
    except (KeyError, TypeError, ValueError):
        return None
    return Known(score, spec.digest, texts.get(PIXELS_KEY))
