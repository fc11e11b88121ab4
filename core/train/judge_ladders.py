"""Make the ladders of damage that the judge learns from, once, into a folder; a stopped run goes on where it ended."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..data.ladder import CLEAN, FAMILIES, LEVELS, LadderKind, file_name
from ..data.ladder_camera import CAMERA
from ..data.ladder_generation import generation_kinds
from ..data.ladder_groups import content_name, write_groups
from ..data.ladder_latent import latent_kinds
from ..data.ladder_scale import SCALE
from ..data.ladder_structure import STRUCTURE
from ..errors import BadInput
from ..files import sweep, whole_file
from ..images import load_image, picture_size, to_picture
from .features import content_of
from .judge_contents import LEAST_SIDE

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone

_WITHOUT_A_MODEL = {"camera": CAMERA, "scale": SCALE, "structure": STRUCTURE}


@dataclass(frozen=True, slots=True)
class LadderRequest:
    """What to make.

    Attributes:
        contents: Good pictures, photographs and generated ones, under licences that allow it.
        out: The folder; nothing else may lie in it.
        families: Out of ``camera``, ``scale``, ``structure``, ``latent``, ``generation``; the last two need a model.
        kinds: Kinds of each family that a content gets, drawn by the content; ``None`` for every one.
        levels: Which of the levels 1 to 5.
        side: Longest side of the pictures: larger ones are cut to their centre, nothing is resized.
        reported: Also make the kinds that the held-out report uses, which are then no longer unseen.
        seed: Of what is drawn.
        groups: What contents belong to, in words, such as the clip of a frame, where that is known: one group is never
            split.
    """

    contents: tuple[Path, ...]
    out: Path
    families: tuple[str, ...] = ("camera", "scale", "structure", "latent")
    kinds: int | None = 3
    levels: tuple[int, ...] = (1, 3, 5)
    side: int = 384
    reported: bool = False
    seed: int = 0
    groups: Mapping[Path, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.contents:
            raise BadInput("pictures to damage", "none", "Name a folder with --contents.")
        unknown = sorted(set(self.families) - set(FAMILIES)) or sorted(set(self.levels) - set(LEVELS))
        if unknown or not self.families or not self.levels:
            got = f"{', '.join(self.families)}; {', '.join(map(str, self.levels))}"
            raise BadInput(f"families out of {', '.join(FAMILIES)}, levels out of 1 to 5", got, "Name others.")
        if self.side < LEAST_SIDE or (self.kinds is not None and self.kinds < 1):
            got = f"side {self.side}, kinds {self.kinds}"
            raise BadInput(f"a side of {LEAST_SIDE} px or more and 1 kind or more", got, "Raise them.")


def families_of(request: LadderRequest, backbone: Backbone | None) -> dict[str, tuple[LadderKind, ...]]:
    """The kinds of each wanted family.

    Raises:
        BadInput: a family that needs a model, and none.
    """
    found: dict[str, tuple[LadderKind, ...]] = {}
    for family in request.families:
        if family in _WITHOUT_A_MODEL:
            kinds = _WITHOUT_A_MODEL[family]
        elif backbone is None:
            raise BadInput(f"a model for the family {family}", "none", "Name one with --model.")
        else:
            latent = family == "latent"
            kinds = latent_kinds(backbone, backbone.family.size_step) if latent else generation_kinds(backbone)
        found[family] = tuple(kind for kind in kinds if request.reported or not kind.reported)
    return found


def make_ladders(
    request: LadderRequest, backbone: Backbone | None = None, watch: Callable[[int, int], None] | None = None
) -> list[Path]:
    """Write what is missing; every file is whole or absent, and the same on every run.

    Args:
        request: What to make.
        backbone: A loaded model, for the families ``latent`` and ``generation``.
        watch: Called with (contents done, contents in all); may raise to stop.

    Returns:
        Every file of the request, old and new.

    Raises:
        BadInput: no model for a family that needs one, or a folder with ladders of another side.
        UnreadableFile: a picture cannot be read.
    """
    sweep(request.out)
    kinds = families_of(request, backbone)
    names = {path: content_of(path)[:16] for path in request.contents}
    groups: dict[str, list[str]] = {}
    for path, words in request.groups.items():
        groups.setdefault(names[path], []).extend(words)
    write_groups(request.out, groups)
    found = []
    for done, (path, name) in enumerate(names.items()):
        found += _one_content(request, path, name, kinds)
        if watch is not None:
            watch(done + 1, len(request.contents))
    return found


def _one_content(request: LadderRequest, path: Path, name: str, kinds: dict[str, tuple[LadderKind, ...]]) -> list[Path]:
    clean = request.out / file_name(name, CLEAN, CLEAN, 0)
    cut = sorted(min(side, request.side) for side in picture_size(path))
    before = sorted(picture_size(clean)) if clean.exists() else cut
    if before != cut:
        there, asked = ("×".join(map(str, sides)) for sides in (before, cut))
        got = f"{clean.name} of {there} px, {asked} px asked for"
        raise BadInput(f"one --side for all ladders in {request.out}", got, "Name another folder, or the same side.")
    image: Tensor | None = None
    wanted: list[tuple[str, LadderKind | None, int]] = [(file_name(name, CLEAN, CLEAN, 0), None, 0)]
    for family, known in kinds.items():
        for kind in _drawn(known, request, f"{name}-{family}"):
            levels = request.levels if kind.begins is None else (0, *request.levels)
            wanted += [(file_name(name, family, kind.name, level), kind, level) for level in levels]
    for file, kind, level in wanted:
        if not (request.out / file).exists():
            image = _centre(load_image(path), request.side) if image is None else image
            seed = random.Random(f"{request.seed}-{name}").randrange(2**31)
            made = image if kind is None else kind.damaged(image, level, seed)
            write_picture(made, request.out / file)
    return [request.out / file for file, _, _ in wanted]


def _drawn(known: Sequence[LadderKind], request: LadderRequest, key: str) -> list[LadderKind]:
    """A content's kinds of a family: the same on every run, whatever else is made."""
    if request.kinds is None or request.kinds >= len(known):
        return list(known)
    return random.Random(f"{request.seed}-{key}").sample(list(known), request.kinds)


def _centre(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return image[:, top : top + side, left : left + side]


def write_picture(image: Tensor, path: Path) -> None:
    """As PNG, whole or not at all."""
    with whole_file(path) as temporary:
        to_picture(image).save(temporary, "PNG")


def generated_name(prompt: str, seed: int, model: str) -> str:
    """The content of pictures that were made from one prompt and seed."""
    return content_name(f"{model}\n{prompt}\n{seed}".encode())
