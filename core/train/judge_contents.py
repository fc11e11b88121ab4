"""Which pictures of a folder ladders may be made of, and what belongs together, by the manifests in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from ..image_files import find_images
from ..images import picture_size
from .features import content_of
from .ldm.pictures import MANIFEST, Listed, listed_in

#: Smaller pictures than this, in px, have no room for damage to show.
LEAST_SIDE = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """Pictures for ladders.

    Attributes:
        paths: The pictures, in natural order.
        groups: What each is known to belong to, in words; pictures without any belong to themselves.
    """

    paths: tuple[Path, ...]
    groups: dict[Path, tuple[str, ...]]


def find_contents(given: str | Path, out: Path) -> Contents:
    """A folder, picture or pattern → the pictures that may be damaged and learned from.

    What a manifest holds back is for reporting: neither those files, nor what belongs to them, nor their copies are
    taken. Pictures below ``out`` are ladders themselves.

    Raises:
        BadInput: no picture, or none that may be used.
        UnreadableFile: a manifest or a picture cannot be read.
    """
    target = out.resolve()
    found = [path for path in map(Path.resolve, find_images([given])) if target not in path.parents]
    listed = _listed(found)
    held = {path: row for path, row in listed.items() if row.held_back}
    words, copies = {row.content for row in held.values()}, {content_of(path) for path in held if path.is_file()}
    kept = [path for path in found if path not in listed or listed[path].content not in words]
    kept = [path for path in kept if not copies or content_of(path) not in copies]
    large = [path for path in kept if min(picture_size(path)) >= LEAST_SIDE]
    if not large:
        got = f"{len(found)}: {len(found) - len(kept)} held back, {len(kept)} too small"
        raise BadInput(f"pictures of {LEAST_SIDE} px or more in {given} to learn from", got, "Name other pictures.")
    if len(large) < len(kept):
        _log.warning("%d pictures with a side below %d px are left out.", len(kept) - len(large), LEAST_SIDE)
    return Contents(tuple(large), {path: (listed[path].content,) for path in large if path in listed})


def _listed(paths: Sequence[Path]) -> dict[Path, Listed]:
    """What manifests beside or above these pictures say, the nearest one first."""
    folders = {parent for path in paths for parent in path.parents if (parent / MANIFEST).is_file()}
    found: dict[Path, Listed] = {}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        for name, row in listed_in(folder).items():
            found.setdefault((folder / name).resolve(), row)
    return found
