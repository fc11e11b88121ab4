"""Train the built-in judge's head on rated pictures: one request in, one file out.

Features are frozen and cached; a validation part is cut from the training pictures by content and by their groups; the
head that ships is then fitted to all of them with the same settings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..benchmark.agreement import Agreement, agreement
from ..data.ladder import read_ladders
from ..data.rated import RatedSet
from ..data.split import split_by_group
from ..files import sweep
from ..methods.judge import SHIPPED
from ..nets.efficientnet_lite import EfficientNetLite0, load_imagenet
from ..nets.judge import JudgeHead, JudgeNetwork
from ..nets.judge_file import JudgeFacts, digest, read, save
from .content import content_groups, united
from .features import FeatureCache, Features
from .judge_damage import DamageGain, taught_by_damage
from .judge_distil import Distillation, Gain, Lessons, fit_taught, gain, pictures
from .judge_head import fit_head, squeezed
from .judge_request import JudgeRequest
from .teachers import on_the_scale

Watch = Callable[[str, int, int], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Material:
    """What a head is fitted to: frozen features of every picture, ratings, and contents.

    Attributes:
        backbone: The feature network.
        cache: Where the features are.
        features: Of every crop and global view.
        described: What the head reads, [n, 2 D].
        mos: [n] ratings.
        groups: [n] numbers; no content lies in two groups.
    """

    backbone: EfficientNetLite0
    cache: FeatureCache
    features: Features
    described: Tensor
    mos: Tensor
    groups: list[int]


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """What came out.

    Attributes:
        validation: Agreement on the validation part.
        facts: What stands in the file.
        gain: What a teacher brought there; ``None`` without one.
        damage: What ladders of damage brought; ``None`` without them.
    """

    validation: Agreement
    facts: JudgeFacts
    gain: Gain | None = None
    damage: DamageGain | None = None


def train_judge(request: JudgeRequest, watch: Watch | None = None) -> JudgeResult:
    """Extract, validate, fit, write.

    Args:
        request: What to train.
        watch: Called with (what, steps done, steps in all); may raise to stop. A stopped run loses one shard at most.

    Raises:
        BadInput: too few pictures, or ratings that are all alike.
        UnreadableFile: a picture or the backbone cannot be read.
        MissingDependency: scikit-learn is not installed.
    """
    if request.damage is not None:
        read_ladders(request.damage.ladders)  # what is missing there is told before hours of work
    sweep(request.out.absolute().parent, request.out.name)
    found = gather(request, watch)
    head, result = _fitted(request, found, watch)
    network = JudgeNetwork(head.width, rank=head.rank)
    network.backbone, network.head = found.backbone, head
    save(request.out, network, result.facts)
    _log.info("Wrote %s: validation SRCC %.3f on %d pictures.", request.out, result.validation.srcc, len(found.mos))
    return result


def _fitted(request: JudgeRequest, found: Material, watch: Watch | None) -> tuple[JudgeHead, JudgeResult]:
    """The head of all pictures, and what one like it did on the held-back ones."""
    if request.damage is not None:
        plain, held = validation_head(request, found, watch)
        head, validation, brought = taught_by_damage(request, found, plain, held, named(watch, "ladders"))
        facts = _facts(request, head, found.described, validation, damage=brought)
        return head, JudgeResult(validation, facts, damage=brought)
    validation, taught = _validate(request, found, watch)
    head, gained = fit_head(found.described, found.mos, request.settings, named(watch, "head")), None
    if taught is not None and request.distil is not None:
        gained, lessons = taught
        if gained.pays:
            everything = range(len(found.described))
            head = fit_taught(found.described, found.mos, lessons, everything, request.distil, request.settings)
            head = squeezed(head, found.described, request.settings)
            validation = gained.taught
    facts = _facts(request, head, found.described, validation, gained)
    return head, JudgeResult(validation, facts, gained)


def gather(request: JudgeRequest, watch: Watch | None = None) -> Material:
    """Extract what the cache lacks, and find the contents.

    Raises:
        UnreadableFile: a picture or the backbone cannot be read.
        MissingDependency: scikit-learn is not installed.
    """
    backbone, tag = _backbone(request.backbone)
    paths = [image.path for image in request.data.images]
    cache = FeatureCache(request.cache, tag, request.shard)
    cache.extract(backbone, paths, named(watch, "features"))
    features = cache.load(paths)
    mos = torch.tensor([image.mos for image in request.data.images])
    clusters = content_groups(features.whole, request.per_group, request.seed)
    groups = united(clusters, [image.group for image in request.data.images], request.share)
    return Material(backbone, cache, features, features.descriptions(), mos, groups)


def _backbone(path: Path | None) -> tuple[EfficientNetLite0, str]:
    """The feature network, its weights rounded to fp16 as they ship, and the tag of its cache."""
    source = SHIPPED if path is None else path
    network = read(source)[0].backbone if path is None else load_imagenet(path)
    return network.half().float().to(memory_format=torch.channels_last), digest(source)  # type: ignore[call-overload]


def validation_head(request: JudgeRequest, found: Material, watch: Watch | None = None) -> tuple[JudgeHead, list[int]]:
    """A head that was fitted without the validation part, and the places of that part."""
    kept, held = split_by_group(found.groups, request.share, request.seed)
    head = fit_head(found.described[kept], found.mos[kept], request.settings, named(watch, "validation"))
    return head, held


def _validate(
    request: JudgeRequest, found: Material, watch: Watch | None
) -> tuple[Agreement, tuple[Gain, Lessons] | None]:
    """The judge alone, and what a teacher would bring, both without the validation part's ratings."""
    head, held = validation_head(request, found, watch)
    with torch.inference_mode():
        alone = agreement(head(found.described[held]).tolist(), found.mos[held].tolist())
    if request.distil is None:
        return alone, None
    kept = sorted(set(range(len(found.mos))) - set(held))
    lessons = learn(request.distil, found, kept, request.data, watch)
    taught = fit_taught(found.described, found.mos, lessons, kept, request.distil, request.settings)
    taught = squeezed(taught, found.described[kept], request.settings)
    groups = [found.groups[place] for place in held]
    return alone, (gain(head, taught, found.described[held], found.mos[held], groups), lessons)


def learn(
    distil: Distillation, found: Material, kept: Sequence[int], data: RatedSet, watch: Watch | None = None
) -> Lessons:
    """The teachers' words on every rated picture and on the unrated ones, brought to the ratings' scale on ``kept``.

    Raises:
        BadInput: a teacher whose scores do not go up with the ratings.
        UnreadableFile: a picture cannot be read.
    """
    folder, rated = found.cache.folder, [image.path for image in data.images]
    unrated = pictures(distil, folder / "ladders")
    described = torch.zeros(0, found.described.shape[1])
    if unrated:
        found.cache.extract(found.backbone, unrated, named(watch, "features of unrated pictures"))
        described = found.cache.load(unrated).descriptions()
    every = [*rated, *unrated]
    heard = [one.lesson(every, folder / "lessons", named(watch, one.name or "teacher")) for one in distil.teachers]
    scores = torch.stack([on_the_scale(lesson.scores, kept, found.mos[kept]) for lesson in heard]).nanmean(dim=0)
    maps = torch.cat([lesson.maps for lesson in heard], dim=1)
    maps = (maps - maps.mean(dim=0)) / maps.std(dim=0).clamp_min(1e-4) if maps.shape[1] else maps
    return Lessons(unrated, described, scores, maps)


def _facts(
    request: JudgeRequest,
    head: JudgeHead,
    described: Tensor,
    validation: Agreement,
    gained: Gain | None = None,
    damage: DamageGain | None = None,
) -> JudgeFacts:
    settings: dict[str, Any] = {**asdict(request.settings), "share": request.share, "split_seed": request.seed}
    if gained is not None and request.distil is not None:
        settings["teacher"] = {
            "names": [one.name for one in request.distil.teachers], "gain": gained.to_dict(), "taught": gained.pays
        }  # fmt: skip
    if damage is not None and request.damage is not None:
        settings["damage"] = {**request.damage.weights, "gain": damage.to_dict()}
    with torch.inference_mode():
        scores = head(described)
    return JudgeFacts(
        width=head.width,
        rank=head.rank,
        format=2 if head.rank else 1,
        calibrated_on=request.calibrated_on,
        training_set=request.data.name,
        pictures=len(described),
        centre=float(scores.mean()),
        spread=float(scores.std()),
        validation=validation.to_dict(),
        settings=settings,
    )


def named(watch: Watch | None, what: str) -> Callable[[int, int], None] | None:
    """A watcher of steps, told as steps of ``what``."""
    return None if watch is None else lambda done, total: watch(what, done, total)
