"""A folder of pictures, and crops of it at several scales, the same for one seed and step."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...errors import BadInput, UnreadableFile
from ...image_files import find_images
from ...images import picture_size
from .kept import KEPT_BYTES, Kept

MANIFEST = "manifest.json"
#: Without a manifest one picture in this many is held back.
_HELD_BACK_SHARE = 10
#: Number and ending of a picture among several of one name.
_NUMBER = re.compile(r"-\d+\.\w+$")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: its file name and what the source says that it shows ("" when nothing); pixels when asked for."""

    name: str
    path: Path
    kept: Kept = field(repr=False, compare=False)
    content: str = ""

    @property
    def pixels(self) -> Tensor:
        """uint8 [3, H, W]; out of memory or read again, see :class:`.kept.Kept`. Hold it where it is used twice.

        Raises:
            UnreadableFile: the file cannot be read (any more).
        """
        return self.kept.pixels(self.path)


@dataclass(frozen=True, slots=True)
class Collection:
    """Pictures to train on and pictures that training never sees."""

    train: tuple[Picture, ...]
    held_back: tuple[Picture, ...]


def load_collection(folder: Path, least: int, most: int = 768, every: int = 1, memory: int = KEPT_BYTES) -> Collection:
    """List a folder; ``manifest.json`` in it, when there, says which pictures are used, shown how, and held back.

    Sizes come from the files' headers: nothing is decoded before it is drawn, and ``memory`` bounds what stays.

    Args:
        folder: Where the pictures lie.
        least: Pictures whose shorter side is below this are left out.
        most: Pictures are made this small along the shorter side at most.
        every: Of those to train on, the first of every so many, in the manifest's order; the others are not read.
        memory: Bytes of decoded pixels that are kept; the rest is read again when it is drawn.

    Raises:
        BadInput: no picture to train on or to hold back, or a negative memory.
        UnreadableFile: a manifest that is no JSON, or a picture that is none.
    """
    rows = _manifest_rows(folder)
    if every > 1:
        used = {id(row) for row in [row for row in rows if not row.get("held_back")][::every]}
        rows = [row for row in rows if row.get("held_back") or id(row) in used]
    train: list[Picture] = []
    held_back: list[Picture] = []
    kept = Kept(most, memory)
    for row in tqdm(rows, desc="pictures", unit="picture", disable=None):
        path = folder / str(row["file"])
        if min(most, *picture_size(path)) >= least:
            picture = Picture(str(row["file"]), path, kept, str(row.get("content", "")))
            (held_back if row.get("held_back") else train).append(picture)
    if not train or not held_back:
        got = f"{len(train)} to train on and {len(held_back)} held back in {folder}"
        raise BadInput("pictures to train on and to hold back", got, "Add pictures, or mark some in the manifest.")
    return Collection(tuple(train), tuple(held_back))


def held_back_paths(folder: Path, least: int) -> dict[Path, str]:
    """The pictures of a folder that training never sees → their contents, in order; none smaller than ``least``.

    Frames of one video share a content, and so do pictures that a source numbers (a-1.png, a-2.png). Without a manifest
    every picture is its own.

    Raises:
        UnreadableFile: as :func:`load_collection`.
    """
    found = {folder / str(row["file"]): _content(row) for row in _manifest_rows(folder) if row.get("held_back")}
    return {path: content for path, content in found.items() if min(picture_size(path)) >= least}


def _content(row: Mapping[str, object]) -> str:
    if "path" not in row:
        return str(row["file"])
    return f"{row.get('source', '')}/{_NUMBER.sub('', str(row['path']))}"


def some_of(pictures: Sequence[T], count: int) -> Sequence[T]:
    """At most ``count`` pictures, evenly over the sequence, so that each source has its part."""
    if count >= len(pictures):
        return pictures
    return [pictures[place * len(pictures) // count] for place in range(count)]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a manifest says of a picture.

    Attributes:
        content: Alike for frames of one video and for pictures that a source numbers.
        held_back: Training never sees it.
    """

    content: str
    held_back: bool


def listed_in(folder: Path) -> dict[str, Listed]:
    """Files of a folder's manifest → what it says of them; empty without a manifest that lists pictures.

    Raises:
        UnreadableFile: a manifest that is no JSON, or whose pictures have no file.
    """
    path = folder / MANIFEST
    rows = _rows(path) if path.exists() else None
    return {str(row["file"]): Listed(_content(row), bool(row.get("held_back"))) for row in rows or ()}


def _rows(path: Path) -> Sequence[Mapping[str, object]] | None:
    """A manifest's pictures; ``None`` where it lists none, being somebody else's."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = told.get("pictures") if isinstance(told, dict) else None
        if rows is not None and not all(isinstance(row, dict) and "file" in row for row in rows):
            raise ValueError("a picture without its file")
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableFile("a manifest with a list 'pictures'", f"{path}: {error}", "See the card.") from error
    return rows


def _manifest_rows(folder: Path) -> Sequence[Mapping[str, object]]:
    path = folder / MANIFEST
    if path.exists():
        rows = _rows(path)
        if rows is None:
            raise UnreadableFile("a manifest with a list 'pictures'", f"{path} without it", "See the card.")
        return rows
    names = sorted(path.relative_to(folder).as_posix() for path in find_images([folder]))
    ranked = sorted(names, key=lambda name: sha256(name.encode()).hexdigest())
    held = set(ranked[: math.ceil(len(names) / _HELD_BACK_SHARE)])
    return [{"file": name, "held_back": name in held} for name in names]


def step_generator(seed: int, *place: int) -> torch.Generator:
    """The draw of one step: a resumed run draws what an uninterrupted one would have drawn."""
    mixed = sha256(":".join(map(str, (seed, *place))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed[:7], "big"))


def random_crop(pixels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """uint8 [3, H, W] → float32 [3, size, size] in [0, 1]: a window of log-uniform side, scaled, maybe mirrored."""
    height, width = pixels.shape[1:]
    place = torch.rand(4, generator=generator).tolist()
    largest = min(height, width)
    side = min(largest, round(size * (largest / size) ** place[0]))
    top, left = int(place[1] * (height - side + 1)), int(place[2] * (width - side + 1))
    crop = pixels[:, top : top + side, left : left + side].to(torch.float32) / 255.0
    if side != size:
        crop = F.interpolate(crop[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return crop.flip(-1) if place[3] < 0.5 else crop


def random_crops(pictures: Sequence[Picture], count: int, size: int, generator: torch.Generator) -> Tensor:
    """Float32 [count, 3, size, size] from pictures drawn with replacement."""
    places = torch.randint(len(pictures), (count,), generator=generator).tolist()
    return torch.stack([random_crop(pictures[place].pixels, size, generator) for place in places])


def centre_views(pictures: Sequence[Picture], size: int) -> Tensor:
    """The whole of each picture as far as a square goes: float32 [N, 3, size, size], for measuring."""
    return torch.stack([_centre_view(picture.pixels, size) for picture in pictures])


def _centre_view(pixels: Tensor, size: int) -> Tensor:
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, top : top + side, left : left + side].to(torch.float32)[None] / 255.0
    return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)
