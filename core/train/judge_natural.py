"""The naturalness term of the study: how far pictures lie from natural statistics, kept in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import write_text
from ..images import load_image
from ..nets.naturalness import PATCH, CleanFit, Naturalness
from .features import content_of
from .judge import Watch

_FLUSH = 200


def clean_model(clean: Sequence[Path]) -> Naturalness:
    """Fitted to clean pictures.

    Raises:
        UnreadableFile: a picture cannot be read.
        BadInput: too few of them.
    """
    fit = CleanFit()
    for path in clean:
        image = load_image(path)
        if min(image.shape[1:]) >= PATCH:
            fit.add(image)
    return fit.done()


def distances(model: Naturalness, paths: Sequence[Path], file: Path, watch: Watch | None = None) -> Tensor:
    """Log distances [n] of pictures from natural statistics, kept in a file; NaN for those smaller than a patch.

    Raises:
        UnreadableFile: a picture cannot be read.
    """
    tag = f"{float(model.mean.sum()):.6e}"
    kept: dict[str, float | None] = {}
    if file.exists():
        told = json.loads(file.read_text(encoding="utf-8"))
        kept = told["values"] if told["tag"] == tag else {}
    values, fresh = [], 0
    for done, path in enumerate(paths):
        key = content_of(path)[:24]
        if key not in kept:
            image = load_image(path)
            kept[key] = model.distance(image) if min(image.shape[1:]) >= PATCH else None
            fresh += 1
        found = kept[key]
        values.append(float("nan") if found is None else float(np.log(found + 1e-3)))
        if fresh and (fresh % _FLUSH == 0 or done + 1 == len(paths)):
            write_text(file, json.dumps({"tag": tag, "values": kept}))
        if watch is not None:
            watch("naturalness", done + 1, len(paths))
    return torch.tensor(values)
