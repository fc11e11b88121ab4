"""The history of scores in ComfyUI's user folder: written with each scoring, never in the way of one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths
import torch

from ..core.errors import LatentCriticError
from ..core.history.place import VARIABLE, in_user_folder, location
from ..core.history.rows import Standing
from ..core.history.store import History
from ..core.records import Score, ScoreBatch
from ._inputs import Stack

#: A percentile of fewer earlier scores says nothing.
LEAST = 20
#: Seconds that a scoring waits for another process's write; a warning is better than a queue that stands still.
_PATIENCE = 2.0


def history_file() -> Path | None:
    """The file; ``None`` when the history is switched off."""
    return location(in_user_folder(folder_paths.get_user_directory()))


def remember(
    images: Stack,
    batch: ScoreBatch,
    prompts: Sequence[str] | None = None,
    conditionings: Callable[[], Sequence[str | None]] | None = None,
) -> ScoreBatch:
    """Record new scores; the same scores, each with its percentile among those before it, where these are enough.

    ``conditionings``: makes hashes of what the images were sampled with, where the node knows no prompt; it is asked
    only when the history is on. A history that
    cannot be written is a warning, once, and never an error.
    """
    found = _recorded(images, batch, prompts, conditionings)
    scores = tuple(_standing(score, standing) for score, standing in zip(batch, found, strict=True))
    return replace(batch, scores=scores)


def places_among_previews(images: Stack, batch: ScoreBatch, at: Mapping[str, Any]) -> list[tuple[float, int] | None]:
    """Record the scores of half-finished images; where each stands among earlier ones ``at`` the same place.

    They are kept apart from the scores of finished images by their spec's settings.

    Returns:
        For each (percentile, among how many earlier ones); ``None`` without a score, an earlier one, or a history.
    """
    spec = replace(batch.spec, settings={**batch.spec.settings, "preview": dict(at)})
    found = _recorded(images, replace(batch, spec=spec))
    return [None if standing is None else (standing.percentile, standing.among) for standing in found]


def _recorded(
    images: Stack,
    batch: ScoreBatch,
    prompts: Sequence[str] | None = None,
    conditionings: Callable[[], Sequence[str | None]] | None = None,
) -> list[Standing | None]:
    try:
        path = history_file()
        if path is not None:
            history = History(path, set_damaged_aside=True, timeout=_PATIENCE)
            hashes = [pixel_hash(single) for single in images.singles]
            return history.record(batch, hashes, prompts, conditionings=conditionings and conditionings())
    except LatentCriticError as error:
        _warn(f"The history of scores is not written: {error} ({VARIABLE}=off switches it off.)")
    return [None] * len(batch)


def pixel_hash(image: torch.Tensor) -> str:
    """A hash of an image's values and shape."""
    values = image.detach().to("cpu", torch.float32).contiguous().numpy()
    found = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    found.update(values.data)
    return found.hexdigest()


def _standing(score: Score, standing: Standing | None) -> Score:
    if standing is None or standing.among < LEAST:
        return score
    known: dict[str, Any] = {"history_percentile": standing.percentile, "history_count": standing.among}
    return replace(score, attributes={**score.attributes, **known})


@lru_cache(maxsize=16)
def _warn(text: str) -> None:
    logging.getLogger(__name__).warning(text)
