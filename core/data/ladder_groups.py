"""What the contents of ladders belong to: a clip with its frames, pictures of one prompt, the same picture twice.

A split keeps a group on one side. Runs note what they know in files beside the pictures, each run its own, so that
none of them loses what another noted; what the pictures themselves say is added when ladders are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy.cluster.hierarchy import DisjointSet

from ..errors import UnreadableFile
from ..files import write_text

_PATTERN = "groups*.json"


def content_name(text: bytes) -> str:
    """A content, or a group of them, by the bytes of its picture or by words: 16 hexadecimal digits."""
    return hashlib.sha256(text).hexdigest()[:16]


def is_name(text: str) -> bool:
    """Whether it is one of those (shorter ones pass)."""
    return bool(text) and all(digit in "0123456789abcdef" for digit in text)


def write_groups(folder: Path, groups: Mapping[str, Sequence[str]]) -> None:
    """Note what contents (names) belong to (any words, one or more), in a file of its own."""
    if not groups:
        return
    named = {content: sorted({content_name(word.encode()) for word in words}) for content, words in groups.items()}
    told = json.dumps(named, indent=0, sort_keys=True) + "\n"
    write_text(folder / f"groups-{content_name(told.encode())}.json", told)


def read_groups(folder: Path, cleans: Mapping[str, Path]) -> dict[str, str]:
    """Contents and their undamaged pictures' files → the group of each; its own name where it stands alone.

    Contents are one group when a file in the folder says so, when undamaged pictures are the same byte for byte, and
    when a third one ties them together.

    Raises:
        UnreadableFile: a list of groups that is none, or a picture that cannot be read.
    """
    noted = [pair for path in sorted(folder.glob(_PATTERN)) for pair in _pairs(path)]
    found = DisjointSet(cleans)
    for content, group in noted:
        found.add(content)
        found.add(group)
        found.merge(content, group)
    for twins in _twins(cleans):
        for other in twins[1:]:
            found.merge(twins[0], other)
    groups = {group for _, group in noted}
    named: dict[str, str] = {}
    for subset in found.subsets():
        named |= dict.fromkeys(subset, min(subset & groups, default=min(subset)))
    return {content: named[content] for content in cleans}


def _pairs(path: Path) -> list[tuple[str, str]]:
    """A file's contents, each with a group; a group may be one name or a list of them."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = [(content, [names] if isinstance(names, str) else names) for content, names in told.items()]
        pairs = [(content, group) for content, names in rows for group in names]
        if not all(is_name(content) and is_name(group) for content, group in pairs):
            raise ValueError("a group that is no hexadecimal name")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        remedy = "Delete it, and run every latent-critic train judge-ladders of this folder again: pictures are kept."
        raise UnreadableFile("contents and their groups as JSON", f"{path}: {error}", remedy) from error
    return pairs


def _twins(cleans: Mapping[str, Path]) -> list[list[str]]:
    """Contents whose undamaged pictures are the same: their files come from one encoder."""
    sizes: dict[int, list[str]] = {}
    for content, path in cleans.items():
        sizes.setdefault(path.stat().st_size, []).append(content)
    twins: dict[bytes, list[str]] = {}
    for contents in sizes.values():
        for content in contents if len(contents) > 1 else ():
            twins.setdefault(hashlib.sha256(cleans[content].read_bytes()).digest(), []).append(content)
    return [contents for contents in twins.values() if len(contents) > 1]
