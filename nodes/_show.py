"""What a node shows: thumbnails with their scores, the report, and the scores for /history."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui
from PIL import Image

from ..core.contact_sheet import contact_sheet
from ..core.images import to_picture
from ..core.records import ScoreBatch
from ..core.selection.policy import Selection, numeral
from ..core.selection.report import report, rows
from ._inputs import Stack

#: Thumbnails on a node; the report lists every image.
MOST_THUMBNAILS = 64
SIDE = 320


def result_ui(batch: ScoreBatch, selection: Selection | None = None, hint: str = "") -> dict[str, list[Any]]:
    """The node's ``ui`` without pictures: ``text`` (report), ``scores`` (rows, best first), ``spec``, ``hint``."""
    return {
        "text": [report(batch, selection, hint)],
        "scores": rows(batch, selection),
        "spec": [batch.spec.to_dict()],
        "hint": [hint] if hint else [],
    }


def thumbnails(images: Stack, batch: ScoreBatch, selection: Selection | None = None) -> list[ui.SavedResult]:
    """Small pictures in ComfyUI's temp folder, best first, each with its rank and score written under it."""
    places = list(selection.ranking if selection else batch.ranking())[:MOST_THUMBNAILS]
    kept = None if selection is None else set(selection.kept)
    pictures = images.channels_first()
    shown = []
    for rank, place in enumerate(places, 1):
        text = caption(batch, place, rank, None if kept is None else place in kept)
        shown.append(contact_sheet([to_picture(rgb(pictures[place]), SIDE)], [text], columns=1, cell=SIDE))
    return save_temporary(shown)


def caption(batch: ScoreBatch, place: int, rank: int, kept: bool | None = None) -> str:
    """The line under a picture, such as ``1 · 74.2 · kept``."""
    score = batch[place]
    name = score.attributes.get("name")
    if score.value is None:
        return f"not scored{f' · {name}' if name else ''}"
    mark = "" if kept is None else (" · kept" if kept else " · rejected")
    return f"{'best' if rank == 1 else rank} · {numeral(score.value)}{mark}{f' · {name}' if name else ''}"


def save_temporary(pictures: list[Image.Image]) -> list[ui.SavedResult]:
    """Pictures → files in ComfyUI's temp folder, as its own previews are."""
    if not pictures:
        return []
    token = "".join(random.choices(string.ascii_lowercase, k=8))
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        f"latent_critic_{token}", folder_paths.get_temp_directory()
    )
    results = []
    for number, picture in enumerate(pictures, counter):
        file = f"{name}_{number:05}_.png"
        picture.save(Path(folder, file), compress_level=1)
        results.append(ui.SavedResult(file, subfolder, io.FolderType.temp))
    return results


def rgb(image: Any) -> Any:
    """[C, H, W] with 1 to 4 channels → [3, H, W]."""
    return image[:1].expand(3, -1, -1) if image.shape[0] <= 2 else image[:3]
