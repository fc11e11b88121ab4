"""A GenzIQA head on the pictures that its training held back: few levels against the published eight, and zero-shot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmark.agreement import agreement, spearman
from ..benchmark.bootstrap import bootstrap_interval
from ..benchmark.significance import compare
from ..data.rated import RatedImage, RatedSet
from ..errors import BadInput
from ..images import load_image
from ..methods.genziqa_settings import FAST, PUBLISHED
from ..methods.zero_shot import ZeroShot
from .genziqa_data import unseen_of
from .genziqa_latents import Latents
from .genziqa_measure import raw_levels

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..methods.genziqa_head import GenzHead

#: Called with (what, done, total); may raise to stop.
Watch = Callable[[str, int, int], None]
_SETTINGS: dict[str, tuple[int, ...]] = {"published (8)": PUBLISHED, "fast (2)": FAST, "fastest (1)": FAST[-1:]}
_AT_ONCE = 4


def check_genziqa(
    head: GenzHead,
    backbone: AdaptableBackbone,
    data: RatedSet,
    folder: Path,
    watch: Watch | None = None,
    *,
    most: int | None = None,
) -> dict[str, Any]:
    """Measure a head on the pictures of its first set that neither its training nor the choice of its step saw.

    Args:
        head: As ``train genziqa`` wrote it.
        backbone: The model that it was trained for.
        data: The set that it was trained on, as it was given there.
        folder: Where contents are kept; the training's run folder has them.
        watch: Told of progress.
        most: Pictures at most.

    Returns:
        Plain types for JSON: the head's agreement with people, how its levels agree, zero-shot's agreement on the same
        pictures, and the paired difference of SRCC, the head's less zero-shot's. Intervals are 95 % ones.

    Raises:
        BadInput: the head does not say what its training held back, or the set is another.
    """
    images = unseen_of(head, data, folder)[:most]
    found = _levels(head, backbone, images, watch)
    keep = np.isfinite(found["own"])
    images = [image for image, kept in zip(images, keep, strict=True) if kept]
    own, mos = head.settings.gain * found["own"][keep], [image.mos for image in images]
    zero = _zero_shot(backbone, images, watch)
    groups = [image.group for image in images]
    return {
        "weights": head.digest(),
        "backbone": backbone.fingerprint.to_text(),
        "data": f"{data.name}, {_which(head)}",
        "n": len(images),
        "genziqa": agreement(own.tolist(), mos, groups).to_dict(),
        "zero_shot": agreement(zero, mos, groups).to_dict(),
        "difference": compare(own.tolist(), zero, mos, groups).to_dict(),
        "levels": [
            {"levels": name, "timesteps": list(steps), **_settings_row(head, found, keep, name, mos)}
            for name, steps in _SETTINGS.items()
        ],
    }


def _which(head: GenzHead) -> str:
    seen = "unseen" not in head.meta.settings["training"]
    return "held back from training" if seen else "seen by neither training nor choice"


def _levels(
    head: GenzHead, backbone: AdaptableBackbone, images: Sequence[RatedImage], watch: Watch | None
) -> dict[str, np.ndarray]:
    """Raw values [pictures] as the head was trained, and with each setting of levels, from one reading."""
    steps = sorted({*PUBLISHED, *FAST, *head.settings.timesteps})
    latents, parts = Latents(backbone, head.settings), []
    for first in range(0, len(images), _AT_ONCE):
        parts.append(raw_levels(latents, head, images[first : first + _AT_ONCE], steps))
        if watch is not None:
            watch("levels", min(first + _AT_ONCE, len(images)), len(images))
    values = np.concatenate(parts)
    wanted = {"own": head.settings.timesteps, **_SETTINGS}
    return {name: values[:, [steps.index(step) for step in chosen]].mean(1) for name, chosen in wanted.items()}


def _settings_row(
    head: GenzHead, found: dict[str, np.ndarray], keep: np.ndarray, name: str, mos: Sequence[float]
) -> dict[str, Any]:
    """A setting's agreement with people, and its rank agreement with the published setting."""
    few, many = head.settings.gain * found[name][keep], head.settings.gain * found["published (8)"][keep]
    low, high = bootstrap_interval(lambda places: spearman(few[places], many[places]), len(few))
    told = agreement(few.tolist(), mos)
    alike = {"with_published": spearman(few, many), "with_published_low": low, "with_published_high": high}
    return {"srcc": told.srcc, "srcc_low": told.srcc_low, "srcc_high": told.srcc_high, **alike}


def _zero_shot(backbone: AdaptableBackbone, images: Sequence[RatedImage], watch: Watch | None) -> list[float]:
    scorer, values = ZeroShot(backbone), list[float]()
    for first in range(0, len(images), _AT_ONCE):
        batch = scorer.score([load_image(image.path) for image in images[first : first + _AT_ONCE]])
        missing = next((score.reason for score in batch if score.value is None), None)
        if missing is not None:
            raise BadInput("pictures that zero_shot can score", missing, "Leave them out.")
        values += [float(value) for value in batch.values() if value is not None]
        if watch is not None:
            watch("zero_shot", len(values), len(images))
    return values
