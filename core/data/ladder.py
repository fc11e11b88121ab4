"""Ladders of known damage for training: kinds in families, five levels each, and the names of their pictures' files.

A picture is only ever compared with its own damaged forms, so that no content looks good by itself. Each family has its
own file: ``ladder_camera.py`` (a), ``ladder_scale.py`` (b), ``ladder_latent.py`` (c), ``ladder_generation.py`` (d),
``ladder_structure.py`` (e).
Kinds that ``held_out.py`` reports on are marked: they are made only where that is asked for, because whoever trains on
them can no longer call them unseen.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import BadInput
from ..image_files import find_images
from ..images import from_picture, to_picture
from .ladder_groups import is_name, read_groups

FAMILIES = ("camera", "scale", "latent", "generation", "structure")
LEVELS = (1, 2, 3, 4, 5)
#: Name of the undamaged picture in place of family and kind.
CLEAN = "clean"
_SUFFIX = ".png"

#: Picture [3, H, W], strength, random generator → the damaged picture, same shape.
Change = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class LadderKind:
    """One kind of damage.

    Attributes:
        family: One of ``FAMILIES``.
        name: Letters and underscores.
        change: Makes it.
        strengths: Of levels 1 to 5.
        begins: Strength of level 0 where the untouched picture is no fair beginning (a latent kind's is one round
            trip through the autoencoder); ``None`` takes the picture itself.
        factors: The hidden scale factor of levels 1 to 5, of the kinds that have one.
        reported: A kind of ``held_out.py``, left out unless asked for.
    """

    family: str
    name: str
    change: Change
    strengths: tuple[float, float, float, float, float]
    begins: float | None = None
    factors: tuple[float, ...] | None = None
    reported: bool = False

    def damaged(self, image: Tensor, level: int, seed: int = 0) -> Tensor:
        """One picture [3, H, W] in [0, 1] → its form at a level from 0 to 5, same shape and range.

        Raises:
            BadInput: another level, or no picture.
        """
        if level not in (0, *LEVELS):
            raise BadInput("a level from 0 to 5", repr(level), "0 is the beginning of the ladder.")
        if image.ndim != 3 or image.shape[0] != 3:
            raise BadInput("a picture [3, H, W]", f"shape {list(image.shape)}", "Give one RGB picture, channels first.")
        strength = self.begins if level == 0 else self.strengths[level - 1]
        if strength is None:
            return image.clone()
        generator = torch.Generator().manual_seed(seed)
        return self.change(image.float(), strength, generator).clamp(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Rung:
    """One picture of a folder of ladders.

    Attributes:
        path: Its file.
        content: The picture that it was made from.
        family: Of damage; ``clean`` for the picture itself.
        kind: Of damage; ``clean`` for the picture itself.
        level: 0 to 5.
        group: What must lie on one side of a split, such as a clip with all of its frames; the content where nothing
            is known of that.
    """

    path: Path
    content: str
    family: str
    kind: str
    level: int
    group: str

    def is_held_back(self, share: int) -> bool:
        """Whether it is for measuring alone: one group in ``share`` is."""
        return int(self.group, 16) % share == 0


def coded(image: Tensor, form: str, **options: Any) -> Tensor:
    """A picture [3, H, W] through a codec of Pillow and back."""
    buffer = io.BytesIO()
    to_picture(image).save(buffer, form, **options)
    buffer.seek(0)
    with Image.open(buffer) as picture:
        return from_picture(picture.convert("RGB"))


def file_name(content: str, family: str, kind: str, level: int) -> str:
    """What a rung's file is called; read back by :func:`read_ladders`."""
    return f"{content}-{family}-{kind}-{level}{_SUFFIX}"


def read_ladders(folder: str | Path, leave_out: Sequence[str] = ()) -> list[list[Rung]]:
    """A folder of rungs → its ladders, each from its least to its most damaged picture, two or more of them.

    Args:
        folder: Written by ``latent-critic train judge-ladders``.
        leave_out: Families that are not wanted.

    Raises:
        BadInput: no ladder there, or a file that is no rung.
        UnreadableFile: groups that cannot be read.
    """
    rungs = [_rung(path) for path in sorted(map(Path, find_images([str(folder)])))]
    cleans = {rung.content: rung.path for rung in rungs if rung.kind == CLEAN}
    groups = read_groups(Path(folder).expanduser(), cleans)
    found: dict[tuple[str, str, str], dict[int, Rung]] = {}
    for rung in (replace(rung, group=groups.get(rung.content, rung.content)) for rung in rungs):
        found.setdefault((rung.content, rung.family, rung.kind), {})[rung.level] = rung
    ladders = []
    for (content, family, kind), rungs in found.items():
        if kind == CLEAN or family in leave_out:
            continue
        clean = found.get((content, CLEAN, CLEAN), {}).get(0)
        if 0 not in rungs and clean is not None:
            rungs[0] = clean
        if len(rungs) > 1:
            ladders.append([rungs[level] for level in sorted(rungs)])
    if not ladders:
        raise BadInput(f"ladders of damage in {folder}", "none", "Make them with latent-critic train judge-ladders.")
    return ladders


def _rung(path: Path) -> Rung:
    parts = path.stem.split("-")
    known = len(parts) == 4 and is_name(parts[0]) and parts[1] in (*FAMILIES, CLEAN)
    if not (known and parts[3].isdigit() and int(parts[3]) in (0, *LEVELS)):
        raise BadInput(
            "files such as CONTENT-camera-jpeg-3.png alone", path.name, "Give ladders a folder of their own."
        )
    return Rung(path, parts[0], parts[1], parts[2], int(parts[3]), parts[0])


def margin(better: Rung, worse: Rung) -> float:
    """How far two rungs' scores should lie apart at least, in deviations of the ratings.

    A generation's extremes lie far from what is sane; for the rest a level counts a little.
    """
    return 1.0 if worse.family == "generation" and worse.level == LEVELS[-1] else 0.1 * (worse.level - better.level)
