"""Every import contract of pyproject.toml is broken once on purpose, in a copy, and must be caught."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: (contract, the file to plant in, the line). Several for contracts that hold several arrows.
VIOLATIONS = [
    ("Rooms of core are layers", "core/methods/__init__.py", "from ..cli import main"),
    ("Rooms of core are layers", "core/methods/__init__.py", "from ..train import features"),
    ("Rooms of core are layers", "core/hosts/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/methods/__init__.py", "from .. import hosts"),
    ("Rooms of core are layers", "core/selection/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/backbone/__init__.py", "from ..taps import recorder"),
    ("Rooms of core are layers", "core/taps/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/taps/__init__.py", "from .. import perceptual"),
    ("Rooms of core are layers", "core/nets/__init__.py", "from .. import perceptual"),
    ("Rooms of core are layers", "core/perceptual/__init__.py", "from .. import guidance"),
    ("Rooms of core are layers", "core/perceptual/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/guidance/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/guidance/__init__.py", "from .. import hosts"),
    ("Rooms of core are layers", "core/guidance/__init__.py", "from .. import restoration"),
    ("Rooms of core are layers", "core/restoration/__init__.py", "from .. import methods"),
    ("Rooms of core are layers", "core/records.py", "from .images import load_image"),
    ("Rooms of core are layers", "core/errors.py", "from . import records"),
    ("Rooms of core are layers", "core/a_room_that_nobody_named.py", "from . import errors"),
    ("Core never imports the nodes", "core/methods/__init__.py", "from ... import nodes"),
    ("Nets are plain networks", "core/nets/__init__.py", "from .. import images"),
    ("Nets are plain networks", "core/nets/__init__.py", "from .. import records"),
    ("Nodes call scorers and policies, not tools", "nodes/__init__.py", "from ..core.cli import main"),
    ("Nodes call scorers and policies, not tools", "nodes/__init__.py", "from ..core.train import features"),
    ("Selection, history and export know records only", "core/selection/__init__.py", "import torch"),
    ("Selection, history and export know records only", "core/selection/__init__.py", "from .. import images"),
    ("Selection, history and export know records only", "core/selection/__init__.py", "import PIL.Image"),
    ("Selection, history and export know records only", "core/export.py", "import torch"),
    ("Selection, history and export know records only", "core/history/store.py", "from .. import images"),
    ("Rooms of core are layers", "core/database.py", "from . import records"),
    ("Records, errors, files and the contact sheet need no torch", "core/records.py", "import torch"),
    ("Records, errors, files and the contact sheet need no torch", "core/contact_sheet.py", "import torch"),
    ("Only the ComfyUI host and the nodes import ComfyUI", "core/methods/__init__.py", "import comfy.samplers"),
    ("Only the ComfyUI host and the nodes import ComfyUI", "core/cli/__init__.py", "import folder_paths"),
    ("Only the ComfyUI host and the nodes import ComfyUI", "core/hosts/__init__.py", "import comfy"),
    ("Only the diffusers host and training import diffusers", "core/methods/__init__.py", "import diffusers"),
    ("Only the diffusers host and training import diffusers", "nodes/__init__.py", "import diffusers"),
    ("Nothing is trained on held-out damage", "core/train/__init__.py", "from ..data import held_out"),
    ("OpenCV comes through one door", "core/images.py", "import cv2"),
]


def _contracts() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r"\[\[tool\.importlinter\.contracts\]\]\nname = \"(.+)\"", text)


def _lint(copy: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(command), "--no-cache", "--config", str(copy / "pyproject.toml")],
        cwd=copy.parent,
        env={**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources in a folder of their own, named as the package is imported."""
    target = tmp_path / "latent_critic"
    target.mkdir()
    for name in ("__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, target / name)
    for room in ("core", "nodes"):
        shutil.copytree(ROOT / room, target / room, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    return target


def test_the_sources_keep_every_contract(copy: Path) -> None:
    done = _lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{len(_contracts())} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_a_planted_violation_is_caught(copy: Path, contract: str, file: str, line: str) -> None:
    path = copy / file
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")
    done = _lint(copy)
    assert done.returncode != 0, f"{line} in {file} was not caught"
    assert f"{contract} BROKEN" in done.stdout or "a_room_that_nobody_named" in done.stdout, done.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == set(_contracts())
