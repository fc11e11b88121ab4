"""What each change to the judge is worth: fitted on frozen features, one at a time and together, on validation alone.

Every row is compared with a head fitted to ratings alone on the same held-back pictures, paired, its interval over
contents. Nothing here looks at a test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..benchmark.agreement import agreement, spearman
from ..benchmark.significance import compare
from ..data.ladder import FAMILIES
from ..data.split import split_by_group
from ..errors import BadInput
from ..nets.efficientnet_lite import load_larger
from ..nets.judge import JudgeHead
from ..nets.naturalness import Naturalness
from .features import FeatureCache
from .judge import Material, Watch, gather, named
from .judge_changes import CHANGES, MAPS, Change, LadderRows, fit_changed
from .judge_damage import rungs
from .judge_larger import LargerTrunk, held_against
from .judge_natural import clean_model, distances
from .judge_order import ordered
from .judge_request import JudgeRequest
from .judge_rungs import HELD_BACK_SHARE

_BASE = Change("ratings alone")


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What to measure with.

    Attributes:
        training: As for ``train judge``; ``out`` is not written.
        ladders: Folder of ladders; without it there is no row of ladders and none of left-out families.
        clean: Clean pictures for the naturalness term; without them there is no row of it.
        flat: Illustrations and anime-like pictures, on which naturalness is held against style.
        mirrored: Look at mirror images of the held-back pictures, which takes a forward of each view.
        larger: A larger trunk to hold the judge's against and to learn from.
        resamples: Bootstrap samples behind the intervals.
    """

    training: JudgeRequest
    ladders: Path | None = None
    clean: tuple[Path, ...] = ()
    flat: tuple[Path, ...] = ()
    mirrored: bool = False
    larger: LargerTrunk | None = None
    resamples: int = 1000


@dataclass(frozen=True, slots=True)
class _Parts:
    found: Material
    kept: list[int]
    held: list[int]
    mirrored: Tensor | None
    ladders: LadderRows | None
    natural: Tensor | None

    @property
    def kept_groups(self) -> list[int]:
        return [self.found.groups[place] for place in self.kept]


def study(request: StudyRequest, watch: Watch | None = None) -> dict[str, Any]:
    """Fit and compare.

    Args:
        request: What to measure with.
        watch: Called with (what, steps done, steps in all); may raise to stop. Features are kept on the way.

    Returns:
        For JSON: ``n`` held-back pictures, ``rows`` of changes, ``families`` left out, ``flat`` pictures' guard, and
        the ``larger`` trunk.

    Raises:
        UnreadableFile: a picture or the backbone cannot be read.
        BadInput: no ladders in their folder, or too few clean pictures.
        MissingDependency: scikit-learn is not installed.
    """
    if request.larger is not None:
        load_larger(request.larger.weights)  # another network's file is told before hours of work
    parts, model = _parts(request, watch)
    told: dict[str, Any] = {
        "n": len(parts.held),
        "pictures": len(parts.found.mos),
        "rows": _rows(request, parts, watch),
    }
    if parts.ladders is not None:
        told["families"] = left_out(request, parts)
    if model is not None and request.flat:
        told["flat"] = _flat(request, parts, model, watch)
    if request.larger is not None:
        ladders = [] if parts.ladders is None else parts.ladders.ladders
        unrated = list(dict.fromkeys(rung.path for ladder in ladders for rung in ladder))
        told["larger"] = held_against(
            request.larger, request.training, parts.found, (parts.kept, parts.held), unrated, watch
        )
    return told


def _rows(request: StudyRequest, parts: _Parts, watch: Watch | None) -> list[dict[str, Any]]:
    """Every change alone, all together, and the maps that the head could do without; paired with the shipped fit."""
    changes = [change for change in CHANGES if _possible(change, parts)]
    together = changes[0]
    for change in changes[1:]:
        together = together.also(change)
    heads = {change.name: change for change in changes} | {"all together": together}
    heads |= {change.name: change for change in MAPS}
    mos = parts.found.mos[parts.held].tolist()
    groups = [parts.found.groups[place] for place in parts.held]
    base, many = _scores(request, parts, _BASE), request.resamples
    first = agreement(base, mos, groups, resamples=many).to_dict()
    rows: list[dict[str, Any]] = [{"name": _BASE.name, "agreement": first, "difference": None}]
    for done, (name, change) in enumerate(heads.items()):
        scores = _scores(request, parts, change)
        found = compare(scores, base, mos, groups, resamples=many).to_dict()
        measured = agreement(scores, mos, groups, resamples=many).to_dict()
        rows.append({"name": name, "agreement": measured, "difference": found})
        if watch is not None:
            watch("changes", done + 1, len(heads))
    return rows


def _possible(change: Change, parts: _Parts) -> bool:
    missing = (
        (change.learns_ladders and parts.ladders is None)
        or (change.mirrored and parts.mirrored is None)
        or (change.natural and parts.natural is None)
    )
    return not missing


def _parts(request: StudyRequest, watch: Watch | None) -> tuple[_Parts, Naturalness | None]:
    training = request.training
    found = gather(training, watch)
    kept, held = split_by_group(found.groups, training.share, training.seed)
    paths = [image.path for image in training.data.images]
    mirrored = ladders = natural = model = None
    if request.mirrored:
        mirrored = _mirrored(found, [paths[place] for place in held], named(watch, "mirror images"))
    if request.ladders is not None:
        ladders = rungs(request.ladders, found, named(watch, "ladders"))
    if request.clean:
        model = clean_model(request.clean)
        natural = distances(model, paths, found.cache.folder / "naturalness.json", watch)
    return _Parts(found, kept, held, mirrored, ladders, natural), model


def _mirrored(found: Material, paths: Sequence[Path], tick: Callable[[int, int], None] | None) -> Tensor:
    cache = FeatureCache(found.cache.folder, found.cache.tag, found.cache.shard, found.cache.most, mirrored=True)
    cache.extract(found.backbone, paths, tick)
    return cache.load(paths).descriptions()


def _fit(request: StudyRequest, parts: _Parts, change: Change, places: Sequence[int]) -> JudgeHead:
    found, picked = parts.found, list(places)
    ladders = None if parts.ladders is None else parts.ladders.part(FAMILIES, False, HELD_BACK_SHARE)
    groups = [found.groups[place] for place in picked]
    return fit_changed(found.described[picked], found.mos[picked], groups, request.training.settings, change, ladders)


def _scores(request: StudyRequest, parts: _Parts, change: Change) -> list[float]:
    """Of the held-back pictures."""
    head = _fit(request, parts, change, parts.kept)
    with torch.inference_mode():
        scores = head(parts.found.described[parts.held])
        if change.mirrored and parts.mirrored is not None:
            scores = (scores + head(parts.mirrored)) / 2.0
    if change.natural and parts.natural is not None:
        scores = scores + natural_share(request, parts, change)(parts.natural[parts.held])
    return scores.tolist()


def natural_share(request: StudyRequest, parts: _Parts, change: Change) -> _Blend:
    """How naturalness moves a score: fitted on half of the kept contents, to a head of the other half."""
    assert parts.natural is not None
    first, second = split_by_group(parts.kept_groups, 0.5, request.training.seed)
    a, b = ([parts.kept[place] for place in half] for half in (first, second))
    head = _fit(request, parts, change, a)
    natural = parts.natural[b]
    known = natural.isfinite()
    with torch.inference_mode():
        scores = head(parts.found.described[b])
    rows = torch.stack([scores[known], natural[known], torch.ones(int(known.sum()))], dim=1).double()
    weights = torch.linalg.lstsq(rows, parts.found.mos[b][known].double()[:, None]).solution[:, 0]
    return _Blend(float(weights[1]), float(natural[known].mean()))


@dataclass(frozen=True, slots=True)
class _Blend:
    weight: float
    mean: float

    def __call__(self, natural: Tensor) -> Tensor:
        """Log distances [n] → points of the scale; 0 where there is none."""
        return (self.weight * (natural - self.mean)).nan_to_num(0.0)


def left_out(request: StudyRequest, parts: _Parts) -> list[dict[str, Any]]:
    """Each family of damage on held-back contents: learned from none, from the others, and from all.

    Raises:
        BadInput: no ladders of held-back contents.
    """
    assert parts.ladders is not None
    known = [family for family in FAMILIES if any(ladder[-1].family == family for ladder in parts.ladders.ladders)]
    change = next(change for change in CHANGES if change.learns_ladders)
    rows = []
    for family in known:
        tested = parts.ladders.part((family,), True, HELD_BACK_SHARE)
        if not tested.ladders:
            raise BadInput(
                f"ladders of held-back contents in {family}",
                "none",
                f"Make more: one group in {HELD_BACK_SHARE} is held.",
            )
        row: dict[str, Any] = {"family": family, "contents": len({ladder[0].content for ladder in tested.ladders})}
        others = [other for other in known if other != family]
        for name, families in (("none", []), ("others", others), ("all", known)):
            learned = parts.ladders.part(families, False, HELD_BACK_SHARE)
            head = fit_changed(
                parts.found.described[parts.kept],
                parts.found.mos[parts.kept],
                parts.kept_groups,
                request.training.settings,
                change if families else _BASE,
                learned,
            )
            row[name] = ordered(head, tested)
        rows.append(row)
    return rows


def _flat(request: StudyRequest, parts: _Parts, model: Naturalness, watch: Watch | None) -> dict[str, Any]:
    """What naturalness would do to pictures whose style is flat, against what it does to photographs."""
    assert parts.natural is not None
    blend = natural_share(request, parts, _BASE)
    natural = distances(model, request.flat, parts.found.cache.folder / "naturalness-flat.json", watch)
    known = natural.isfinite()
    moved, usual = blend(natural[known]), blend(parts.natural[parts.held])
    held = parts.natural[parts.held]
    alone = spearman(-held[held.isfinite()].numpy(), parts.found.mos[parts.held][held.isfinite()].numpy())
    return {
        "pictures": int(known.sum()),
        "shift": float(moved.mean() - usual.mean()),
        "worst": float(moved.min()) if len(moved) else 0.0,
        "weight": blend.weight,
        "srcc_of_naturalness_alone": alone,
    }
