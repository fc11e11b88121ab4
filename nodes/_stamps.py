"""What tells ComfyUI that a chosen file was written again, so that a node runs again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

#: For a choice that is linked, or that names no file.
NO_FILE = "none"


def stamp(*files: Callable[[], Path | None]) -> str:
    """Time and size of each file; the system's words where one is gone or cannot be read.

    Args:
        files: Give the path, or ``None`` where there is no file to look at; may raise ``OSError``.
    """
    return " ".join(map(_one, files))


def _one(file: Callable[[], Path | None]) -> str:
    try:
        path = file()
        seen = None if path is None else path.stat()
    except OSError as error:
        return str(error)
    return NO_FILE if seen is None else f"{seen.st_mtime_ns} {seen.st_size}"
