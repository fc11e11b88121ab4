"""Run a command once more inside a process that has a ComfyUI's libraries, for what needs a loaded model."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import BadInput

_MARK = "LATENT_CRITIC_INSIDE_COMFYUI"


def is_inside() -> bool:
    """Whether this process was started so, and ComfyUI has been told its device."""
    return os.environ.get(_MARK) == "1" and "comfy.cli_args" in sys.modules


def run_inside(folder: Path, given: Sequence[str]) -> int:
    """The same command line in a process whose path holds the ComfyUI in ``folder``; its exit code.

    Raises:
        BadInput: no ComfyUI there.
    """
    from ..hosts.comfyui import launch

    folder = folder.expanduser().resolve()
    if not (folder / "comfy" / "samplers.py").is_file():
        raise BadInput("a ComfyUI folder (the one that holds main.py)", str(folder), "Fix the path.")
    # Nothing in the folder that the user is in may take the name of one of ComfyUI's modules (Python 3.11 and later).
    settings = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", _MARK: "1"}
    command = launch.command(f"{__package__}.main", *given)
    return subprocess.run(command, env=settings, check=False).returncode


def where_asked(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command's function that runs inside the ComfyUI of ``--comfyui``, where that is given."""

    def runs(arguments: argparse.Namespace) -> int:
        if arguments.comfyui is not None and not is_inside():
            return run_inside(arguments.comfyui, arguments.given)
        return run(arguments)

    return runs
