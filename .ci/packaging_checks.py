"""The registry's archive: made by ComfyUI's own command line, looked into, and loaded by a real ComfyUI."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path

from steps import ROOT, StepFailed, answer, say

#: What users get; every tracked file below these goes in.
SHIPPED = ("core/", "nodes/", "web/", "locales/", "workflows/", "subgraphs/")
NEEDED = ("__init__.py", "pyproject.toml", "README.md", "LICENSE")
#: What only contributors need.
HELD_BACK = ("tests/", ".ci/", "data/", "runs/", ".git", ".comfyignore")
LARGEST_MIB = 45.0
#: Neither asks whether it may report usage, nor reports it.
QUIET = {"DO_NOT_TRACK": "1"}


def validate(comfy: Path) -> None:
    """``comfy node validate``, with its security warnings as errors.

    Raises:
        StepFailed: the metadata or a line of code would be refused by the registry.
    """
    text = answer([comfy, "--skip-prompt", "node", "validate"], env=QUIET)
    say(text.strip())
    if "warning" in text.lower() or "error" in text.lower():
        raise StepFailed("comfy node validate has complaints")


def pack(comfy: Path, python: Path, tree: Path) -> None:
    """``comfy node pack``, then a look at what is in the archive, and a load of it in a folder of another name."""
    archive = ROOT / "node.zip"
    try:
        say(answer([comfy, "--skip-prompt", "node", "pack"], env=QUIET).strip())
        look(archive)
        loads(archive, python, tree)
    finally:
        archive.unlink(missing_ok=True)


def look(archive: Path) -> None:
    """Compare the archive with what git tracks.

    Raises:
        StepFailed: something is missing, should not be there, or it is too large.
    """
    with zipfile.ZipFile(archive) as file:
        sizes = {entry.filename: entry.file_size for entry in file.infolist() if not entry.is_dir()}
    tracked = answer(["git", "ls-files"]).splitlines()
    wanted = {name for name in tracked if name.startswith(SHIPPED) or name in NEEDED}
    missing = sorted((wanted | set(NEEDED)) - sizes.keys())
    unwanted = sorted(name for name in sizes if name.startswith(HELD_BACK))
    mib = archive.stat().st_size / 2**20
    say(f"{len(sizes)} files, {mib:.2f} MiB packed, {sum(sizes.values()) / 2**20:.2f} MiB unpacked; the largest:")
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True)[:5]:
        say(f"  {sizes[name] / 2**20:7.2f} MiB  {name}")
    if missing or unwanted or mib > LARGEST_MIB:
        raise StepFailed(f"the archive lacks {missing}, should not hold {unwanted}, is {mib:.1f} of {LARGEST_MIB} MiB")


def loads(archive: Path, python: Path, tree: Path) -> None:
    """Unpack the archive under a name that is no Python identifier and load it as ComfyUI does.

    Raises:
        StepFailed: it does not load, or brings no node.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "custom_nodes" / "latent-critic 0.x (unpacked)"
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        text = answer([python, ROOT / ".ci" / "load_pack.py", tree, folder], cwd=tree)
    nodes = json.loads(text.splitlines()[-1])[folder.name]
    say(f"unpacked as {folder.name!r}, ComfyUI registers {len(nodes)} nodes: {', '.join(nodes)}")
    if not nodes:
        raise StepFailed("the packed archive brings no node")
