"""One GenzIQA head beside another, on pictures that neither training drew to learn from or to choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmark.agreement import agreement
from ..benchmark.significance import compare
from ..data.rated import RatedImage, RatedSet
from ..errors import BadInput
from .genziqa_data import drawn_for, unseen_of
from .genziqa_latents import Latents
from .genziqa_measure import raw_levels

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone
    from ..methods.genziqa_head import GenzHead

#: Called with (what, done, total); may raise to stop.
Watch = Callable[[str, int, int], None]
_AT_ONCE = 4
_FEWEST = 10


def beside(
    head: GenzHead,
    other: GenzHead,
    backbone: AdaptableBackbone,
    data: RatedSet,
    folder: Path,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """How two heads rank the same pictures: what one's training left unseen, less all that the other's drew.

    Args:
        head: As ``train genziqa`` wrote it; its training cut off an unseen part.
        other: The head that is installed.
        backbone: The model that both were trained for.
        data: The set that both were trained on, as it was given there.
        folder: Where contents are kept; the head's run folder has them.
        watch: Told of progress.

    Returns:
        Plain types for JSON: how each was trained, its agreement with people, and the paired difference of SRCC, the
        head's less the other's, with its 95 % interval.

    Raises:
        BadInput: a head does not say what its training drew, or too few pictures are new to both.
    """
    drawn = drawn_for(other, data)
    images = [image for image in unseen_of(head, data, folder) if image.path.name not in drawn]
    if len(images) < _FEWEST:
        raise BadInput(f"{_FEWEST} pictures new to both", str(len(images)), "Train on more of the set.")
    values = {"head": _scores(head, backbone, images, watch), "other": _scores(other, backbone, images, watch)}
    kept = np.isfinite(values["head"]) & np.isfinite(values["other"])
    mos = [image.mos for image, keep in zip(images, kept, strict=True) if keep]
    groups = [image.group for image, keep in zip(images, kept, strict=True) if keep]
    new, old = (values[name][kept].tolist() for name in ("head", "other"))
    return {
        "head": {**_facts(head), **agreement(new, mos, groups).to_dict()},
        "other": {**_facts(other), **agreement(old, mos, groups).to_dict()},
        "difference": compare(new, old, mos, groups).to_dict(),
        "data": f"{data.name}, the part trained on: pictures new to both",
        "n": len(mos),
    }


def _facts(head: GenzHead) -> dict[str, Any]:
    settings, training = head.settings, head.meta.settings["training"]
    told = {name: training.get(name) for name in ("steps", "batch", "rate", "ladders", "limit")}
    read = {"side": settings.side, "timesteps": list(settings.timesteps), "rank": head.lora.rank}
    return {"weights": head.digest(), "pictures": head.meta.pictures, **told, **read}


def _scores(
    head: GenzHead, backbone: AdaptableBackbone, images: Sequence[RatedImage], watch: Watch | None
) -> np.ndarray:
    latents, parts = Latents(backbone, head.settings), []
    for first in range(0, len(images), _AT_ONCE):
        some = images[first : first + _AT_ONCE]
        parts.append(raw_levels(latents, head, some, head.settings.timesteps).mean(1))
        if watch is not None:
            watch(head.digest(), first + len(some), len(images))
    return head.settings.gain * np.concatenate(parts)
