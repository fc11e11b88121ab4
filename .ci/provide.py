"""Bring what a bare machine lacks: virtual environments, ComfyUI, a browser and its driver.

Everything comes through the machine's own package clients as they are set up there. Nothing is installed outside the
checkout's own folders, except a browser, Node.js and Python's venv module, and those only by root through apt-get.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import comfyui
from steps import ROOT, StepFailed, call, say

HERE = ROOT / ".ci"
BROWSER_TESTS = ROOT / "tests" / "e2e"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MAC_BROWSERS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def apt(*packages: str) -> bool:
    """Install Debian packages, where this is root's Debian or Ubuntu; False elsewhere.

    Raises:
        StepFailed: apt-get could not.
    """
    if shutil.which("apt-get") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", "update", "-qq"], env=quiet)
    call(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=quiet)
    return True


class Environment:
    """A virtual environment; what was installed into it is remembered by a hash of the lists it came from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")

    def script(self, name: str) -> Path:
        """The path of a command that a package has put there."""
        return self.scripts / (f"{name}.exe" if os.name == "nt" else name)

    def create(self) -> None:
        """Make it, unless it is there."""
        if self.python.exists():
            say(f"using {self.folder}")
            return
        say(f"making {self.folder}")
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            if not apt("python3-venv"):  # Debian's Python comes without it
                raise StepFailed(f"no virtual environment: {error}. Install Python's venv module.") from error
            self._build()

    def _build(self) -> None:
        half_made = (self.folder / "pyvenv.cfg").exists()
        if self.folder.exists() and not half_made and any(self.folder.iterdir()):
            raise StepFailed(f"{self.folder} should be a virtual environment or not exist; it holds other files")
        venv.create(self.folder, with_pip=True, clear=half_made)

    def install(self, name: str, arguments: Sequence[str | Path], lists: Sequence[Path]) -> None:
        """``pip install``, unless the same arguments and lists went in before.

        Args:
            name: What this installation is called in the environment's memory.
            arguments: pip's arguments.
            lists: Files whose contents decide what is installed.
        """
        text = "\n".join([sys.version, *map(str, arguments), *(path.read_text(encoding="utf-8") for path in lists)])
        wanted = hashlib.sha256(text.encode()).hexdigest()
        stamp = self.folder / f".installed-{name}"
        if stamp.exists() and stamp.read_text() == wanted:
            say(f"{name}: already there, lists unchanged")
            return
        call([self.python, "-m", "pip", "install", "--quiet", "--no-input", *arguments])
        stamp.write_text(wanted)


def main_environment() -> Environment:
    """The project's environment: ``.venv``, or the folder that LATENT_CRITIC_VENV names."""
    named = os.environ.get("LATENT_CRITIC_VENV")
    environment = Environment(Path(named).expanduser().absolute() if named else ROOT / ".venv")
    environment.create()
    return environment


def package(environment: Environment, extra: str) -> None:
    """This checkout, editable, with one of its extras."""
    constraints = HERE / "constraints.txt"
    environment.install(
        extra,
        ["--constraint", constraints, "--editable", f"{ROOT}[{extra}]"],
        [ROOT / "pyproject.toml", constraints],
    )


def comfyui_packages(environment: Environment) -> None:
    """What ComfyUI imports; torchvision without its dependencies, which would bring another torch."""
    wanted, constraints = HERE / "requirements-comfyui.txt", HERE / "constraints.txt"
    environment.install("torchvision", ["--constraint", constraints, "--no-deps", "torchvision"], [constraints])
    environment.install("comfyui", ["--constraint", constraints, "--requirement", wanted], [wanted, constraints])


def comfyui_tree() -> Path:
    """A ComfyUI: the one that is here already, or a fetched copy."""
    try:
        folder = comfyui.find_or_fetch()
    except (OSError, RuntimeError) as error:
        raise StepFailed(f"no ComfyUI: {error}") from error
    say(f"ComfyUI {comfyui.version(folder)} at {folder}")
    return folder


def comfy_cli() -> Path:
    """ComfyUI's command line in an environment of its own."""
    environment = Environment(ROOT / ".venv-comfy-cli")
    environment.create()
    wanted = HERE / "requirements-comfy-cli.txt"
    environment.install("comfy-cli", ["--requirement", wanted], [wanted])
    return environment.script("comfy")


def browser() -> Path:
    """A Chromium-like browser; installed through apt-get where this is root's Debian.

    Raises:
        StepFailed: none is here and none may be installed.
    """
    found = _find_browser()
    if found is None and apt("chromium", "fonts-dejavu-core"):
        found = _find_browser()
    if found is None:
        raise StepFailed(
            "no browser: install Chromium or Chrome, or name one by LATENT_CRITIC_BROWSER; "
            "'test --without browser' leaves the browser tests out"
        )
    say(f"browser {found}")
    return found


def _find_browser() -> Path | None:
    named = os.environ.get("LATENT_CRITIC_BROWSER")
    if named:
        return Path(named)
    for name in BROWSERS:
        if found := shutil.which(name):
            return Path(found)
    return next((Path(path) for path in MAC_BROWSERS if Path(path).exists()), None)


def browser_driver() -> None:
    """playwright-core, at the version that tests/e2e/package-lock.json holds."""
    npm = shutil.which("npm")
    if npm is None and apt("nodejs", "npm"):
        npm = shutil.which("npm")
    if npm is None:
        raise StepFailed("npm is not installed: the browser tests need Node.js 18 or later")
    call([npm, "ci", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix", BROWSER_TESTS])
