"""The files of this checkout that git tracks or would track: what a fresh clone holds, plus new work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files() -> list[str]:
    """Their names relative to the checkout, sorted, with forward slashes."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in set(names) if name and (ROOT / name).is_file())


def copy(target: Path, without: tuple[str, ...] = ()) -> Path:
    """Copy them to a folder, except those whose names start with one of ``without``; returns the folder."""
    for name in files():
        if not name.startswith(without or ("\0",)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
