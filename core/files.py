"""Files that are whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import LatentCriticError, UnwritableFile


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` at once, on any error it is removed.

    Raises:
        UnwritableFile: the disk is full, or the folder takes no files.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        usual = _usual_mode(temporary)
        yield temporary
        if temporary.stat().st_mode != usual:  # safetensors' writer leaves files that nobody else may read
            with suppress(OSError):  # a disk without rights
                temporary.chmod(usual)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except LatentCriticError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # its folder could not be made
            temporary.unlink(missing_ok=True)


def _usual_mode(path: Path) -> int:
    """The rights of a file that is simply opened here."""
    path.touch()
    mode = path.stat().st_mode
    path.unlink()  # a writer that writes nothing is an error, not an empty file
    return mode


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed writers left beside files called ``name``: their process runs no more.

    Does nothing on Windows, which offers no harmless way to ask for a process.
    """
    if os.name != "posix":
        return
    for leftover in folder.glob(f".{name}.*.tmp*"):
        number = leftover.name.rpartition(".tmp")[0].rpartition(".")[2]
        if number.isdigit() and not _runs(int(number)):
            leftover.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def unwritable(path: Path, error: OSError) -> UnwritableFile:
    """What the system's refusal to write a file means to its user."""
    words = error.strerror or str(error) or type(error).__name__
    found = UnwritableFile(
        f"to write {path}", words, "Free some room on the disk, or name a place that you may write to."
    )
    found.strerror = words  # the system's own words, for callers that say it in theirs
    return found


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def user_cache(name: str) -> Path | None:
    """A folder for what can be computed again, in $LATENT_CRITIC_CACHE or the user's cache; it need not exist.

    ``None`` for somebody without a home folder.
    """
    named = os.environ.get("LATENT_CRITIC_CACHE")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(named or f"{base}/latent-critic").expanduser() / name
    except RuntimeError:
        return None
