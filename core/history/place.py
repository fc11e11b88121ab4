"""Where the history lies, and whether it is switched off."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BadInput

#: Names the file, or says ``off`` (also ``0``, ``no``, ``false``) or ``on``.
VARIABLE = "LATENT_CRITIC_HISTORY"


def location(default: Path) -> Path | None:
    """The file that the environment variable names, else the default; ``None`` when the history is switched off.

    Raises:
        BadInput: the variable names the home folder of somebody who has none.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen.lower() in ("", "on", "1", "yes", "true"):
        return default
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise BadInput(f"a file, on or off in {VARIABLE}", repr(chosen), f"No such home folder ({error}).") from error


def in_user_folder(folder: str | Path) -> Path:
    """Where the history lies in ComfyUI's user folder."""
    return Path(folder) / "latent_critic" / "history.sqlite"
