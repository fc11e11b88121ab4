"""Files into folders: nothing is overwritten, nothing is deleted but a moved file's old name, nothing is half there."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import UnwritableFile


def destination(source: Path, folder: Path, taken: Collection[Path]) -> Path:
    """Where a file goes in a folder: its own name, or ``name-2``, ``name-3`` … where that is another file's.

    A file of the same content that is there already counts as this one, so that a run that was stopped can be run
    again. ``taken`` are the destinations of this run so far.
    """
    for candidate in _names(folder / source.name):
        if candidate in taken:
            continue
        if not os.path.lexists(candidate) or same_file(source, candidate):
            return candidate
    raise AssertionError("the names never end")


def free_name(path: Path) -> Path:
    """The path itself, or with the first number that is free."""
    return next(candidate for candidate in _names(path) if not os.path.lexists(candidate))


def put(source: Path, target: Path, move: bool) -> None:
    """Copy or move a file to a name that is free, or that holds the same content already.

    The target appears whole and on the disk before a moved file's old name is taken away.

    Raises:
        UnwritableFile: the disk is full, the folder takes no files, or another file has taken the name.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and same_file(source, target)):
            _arrive(source, target, move)
        if move:
            _flush_folder(target.parent)
            source.unlink()
    except OSError as error:
        raise UnwritableFile(
            f"to {'move' if move else 'copy'} {source} to {target}",
            error.strerror or type(error).__name__,
            "What was done so far stays; run the same command again to go on.",
        ) from error


def _names(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def same_file(source: Path, other: Path) -> bool:
    """Whether the other is a file of the same content."""
    return other.is_file() and filecmp.cmp(source, other, shallow=False)


def _arrive(source: Path, target: Path, move: bool) -> None:
    if move and not source.is_symlink() and _linked(source, target):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if not _linked(temporary, target):
            # A file system without hard links: rename, which must not replace anything.
            if os.path.lexists(target):
                raise FileExistsError(f"{target} appeared meanwhile")
            temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _linked(source: Path, target: Path) -> bool:
    """A second name for the file: at once, and never over another file. False where there are no hard links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # a folder cannot be opened there
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
