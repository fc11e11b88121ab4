"""What a node shows: thumbnails with their scores, the report, and the scores for /history."""

from __future__ import annotations

import logging
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui
from PIL import Image

from ..core.contact_sheet import Mark, contact_sheet
from ..core.images import to_picture
from ..core.records import Score, ScoreBatch
from ..core.selection.policy import Selection, numeral
from ..core.selection.report import report, rows
from ._inputs import Stack

logger = logging.getLogger(__name__)

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
    """Small pictures in ComfyUI's temp folder, best first, each with its rank and score on it."""
    places = list(selection.ranking if selection else batch.ranking())[:MOST_THUMBNAILS]
    kept = None if selection is None else set(selection.kept)
    return save_temporary([sheet(images, batch, [place], SIDE, 1, kept) for place in places])


def sheet(
    images: Stack,
    batch: ScoreBatch,
    places: Sequence[int],
    cell: int,
    columns: int | None = None,
    kept: set[int] | None = None,
) -> Image.Image:
    """The images at these places on one picture, each with rank, score and bar."""
    ranks = {place: rank for rank, place in enumerate(batch.ranking(), 1)}
    pixels = images.channels_first()
    # As many lines under each picture, so that single thumbnails have one size.
    two_lines = any(_second_line(score) for score in batch)
    return contact_sheet(
        [to_picture(rgb(pixels[place]), cell) for place in places],
        [_caption(batch[place], None if kept is None else place in kept, two_lines) for place in places],
        columns,
        cell,
        marks=[_mark(batch, place, ranks[place]) for place in places],
    )


def _caption(score: Score, kept: bool | None, two_lines: bool) -> str:
    """Score and fate, and on a second line the name, or the reason why there is no score."""
    first = "not scored" if score.value is None else numeral(score.value)
    if kept is not None and score.ok:
        first += "  kept" if kept else "  rejected"
    return f"{first}\n{_second_line(score)}" if two_lines else first


def _second_line(score: Score) -> str:
    return score.reason or str(score.attributes.get("name") or "")


def _mark(batch: ScoreBatch, place: int, rank: int) -> Mark:
    """Badge with the rank; a bar along the scale, or by rank where the score has no scale."""
    value = batch[place].value
    if value is None:
        return Mark(crossed=True)
    badge = "best" if rank == 1 else str(rank)
    if batch.spec.scale is None:
        scored = sum(score.ok for score in batch)
        return Mark(1.0 - (rank - 1) / max(1, scored - 1), badge)
    low, high = batch.spec.scale
    fraction = (value - low) / (high - low)
    return Mark(fraction if batch.spec.direction == "higher" else 1.0 - fraction, badge)


def save_temporary(pictures: list[Image.Image]) -> list[ui.SavedResult]:
    """Pictures → files in ComfyUI's temp folder, as its own previews are; none, with a line in the log, on a full disk.

    A node's outputs do not hang on what it shows.
    """
    if not pictures:
        return []
    try:
        return _save_temporary(pictures)
    except OSError as error:
        logger.warning("No thumbnails, for they cannot be written: %s. The node's outputs are complete.", error)
        return []


def _save_temporary(pictures: list[Image.Image]) -> list[ui.SavedResult]:
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
