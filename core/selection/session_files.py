"""The numbered pictures in a session's folder: which are whole, and how one moves without overwriting. No torch."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBERED = re.compile(r"_(\d{5,})_\.png$")
_UNFINISHED = re.compile(r"^\..+_\d{5,}_\.png\.\d+\.tmp\.png$")


def number_of(name: str) -> int | None:
    """The number in a file's name; ``None`` where there is none."""
    found = _NUMBERED.search(name)
    return int(found[1]) if found else None


def whole_files(folder: Path) -> list[str]:
    """Names of the PNG files. Under the lock nobody of ours is writing, so what is unfinished was left by a kill."""
    names = []
    for path in folder.iterdir():
        if path.suffix.lower() != ".png" or not path.is_file():
            continue
        if _UNFINISHED.match(path.name) or (_NUMBERED.search(path.name) and path.stat().st_size == 0):
            path.unlink(missing_ok=True)
        elif not path.name.startswith("."):
            names.append(path.name)
    return names


def move(source: Path, folder: Path) -> Path:
    """Move a file into a folder under its own name, or a like one where that is taken."""
    target, number = folder / source.name, 2
    while True:
        try:
            target.touch(exist_ok=False)
            break
        except FileExistsError:
            target = folder / _NUMBERED.sub(rf"-{number}_\1_.png", source.name)
            if target.name == source.name:  # a file that someone renamed
                target = folder / f"{source.stem}-{number}{source.suffix}"
            number += 1
    try:
        source.replace(target)
    except BaseException:
        # Ours, and empty: it only held the name.
        target.unlink(missing_ok=True)
        raise
    return target
