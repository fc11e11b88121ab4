"""What fewer views cost the built-in judge in agreement, on the validation part of its training pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..benchmark.agreement import Agreement, agreement
from ..benchmark.significance import Comparison, compare
from ..methods.judge import SHIPPED
from ..nets.judge import describe
from ..nets.judge_file import digest, read
from ..nets.views import MOST_CROPS
from .features import Features
from .judge import Material, Watch, gather, named, validation_head
from .judge_damage import head_without, rungs
from .judge_request import JudgeRequest

#: Crops at most, of each policy that is tried beside the full one; 0 shows the global view in the crops' place.
CANDIDATES = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class ViewsRow:
    """One number of crops.

    Attributes:
        most: Native-scale crops at most, beside the global view.
        views: Views of a picture, on average.
        agreement: With people, on the validation part.
        loss: Against all crops, on the same pictures; its interval draws contents. ``None`` for all crops.
    """

    most: int
    views: float
    agreement: Agreement
    loss: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def views_report(
    request: JudgeRequest, candidates: Sequence[int] = CANDIDATES, watch: Watch | None = None
) -> dict[str, Any]:
    """Fit the head without the validation part, then score that part with all crops and with few.

    Args:
        request: As for training; ``out`` is not written.
        candidates: Numbers of crops to try.
        watch: As for training.

    Returns:
        For JSON: ``weights`` (digest of the shipped judge, or of another backbone), ``damage`` (weights of what
        ladders taught the head; ``None`` for ratings alone), ``n``, ``rows``.

    Raises:
        UnreadableFile: a picture or the backbone cannot be read.
        MissingDependency: scikit-learn is not installed.
    """
    found = gather(request, watch)
    head, held = validation_head(request, found, watch)
    if request.damage is not None:
        rows = rungs(request.damage.ladders, found, named(watch, "ladders"))
        head = head_without(request, found, held, rows)
    mos, groups = found.mos[held].tolist(), [found.groups[place] for place in held]

    def scored(described: Tensor) -> list[float]:
        with torch.inference_mode():
            return head(described).tolist()

    full = scored(found.described[held])
    views = float((found.features.counts[held] + 1).float().mean())
    told = [ViewsRow(MOST_CROPS, views, agreement(full, mos, groups), None)]
    for most in candidates:
        features = _few(request, found, held, most, watch)
        scores = scored(_global_alone(features) if most == 0 else features.descriptions())
        loss = compare(scores, full, mos, groups)
        views = 1.0 + (float(features.counts.float().mean()) if most else 0.0)
        told.append(ViewsRow(most, views, agreement(scores, mos, groups), loss))
    weights = None if request.damage is None else request.damage.weights
    rows_told = [row.to_dict() for row in told]
    return {"weights": _weights(request, found), "damage": weights, "n": len(held), "rows": rows_told}


def _weights(request: JudgeRequest, found: Material) -> str:
    """The shipped judge's digest where its backbone was used, by whatever file it came."""
    shipped, used = read(SHIPPED)[0].backbone.state_dict(), found.backbone.state_dict()
    same = shipped.keys() == used.keys() and all(torch.equal(shipped[name], used[name]) for name in shipped)
    return digest(SHIPPED if same else request.backbone or SHIPPED)


def _few(request: JudgeRequest, found: Material, held: list[int], most: int, watch: Watch | None) -> Features:
    """Features of the validation part with few crops, from their own cache."""
    paths = [request.data.images[place].path for place in held]
    cache = replace(found.cache, most=max(most, 1))
    cache.extract(found.backbone, paths, named(watch, f"{most} crops"))
    return cache.load(paths)


def _global_alone(features: Features) -> Tensor:
    """Descriptions of one view: the global view stands for the crops too."""
    whole = features.whole.float()
    return describe(whole[:, None], whole)
