"""The two commands of the README, on a machine that has Python, git and little else.

    python3 .ci/dev.py demo    a ranked contact sheet from a fresh clone
    python3 .ci/dev.py test    every check that CI runs

Both make what they need inside the checkout (.venv, or the folder that LATENT_CRITIC_VENV names) and use it again next
time. Standard library only.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import packaging_checks
import provide
from steps import ROOT, StepFailed, Timetable, call, say

SHEET = "contact_sheet.png"
TABLE = "scores.csv"
MOST_WORKERS = 4  # each imports ComfyUI and holds tiny models: about 2 GB


def demo(arguments: argparse.Namespace) -> int:
    """Install the package with its demo extra, then run ``latent-critic demo``."""
    environment = provide.main_environment()
    provide.package(environment, "demo")
    call([environment.script("latent-critic"), "demo", "--out", arguments.out.absolute()])
    say(f"\nLook at {arguments.out / SHEET}; the numbers are in {arguments.out / TABLE}.")
    return 0


def test(arguments: argparse.Namespace) -> int:
    """Set everything up, run every check, print what took how long."""
    times = Timetable()
    checks = Checks(times, arguments)
    try:
        checks.set_up()
        checks.run()
    except StepFailed:
        pass  # written down in the timetable
    return times.close()


class Checks:
    """CI's steps in their order."""

    def __init__(self, times: Timetable, arguments: argparse.Namespace) -> None:
        self.times, self.without, self.pytest = times, arguments.without, arguments.pytest

    def set_up(self) -> None:
        """Bring what is needed; the first failure ends the run."""
        run = self.times.run
        run("set up: Python packages", self._packages)
        run("set up: ComfyUI's packages", lambda: provide.comfyui_packages(self.environment))
        run("set up: ComfyUI", lambda: setattr(self, "tree", provide.comfyui_tree()))
        run("set up: comfy-cli", lambda: setattr(self, "comfy", provide.comfy_cli()))
        if "browser" not in self.without:
            run("set up: browser", lambda: setattr(self, "browser", provide.browser()))
            run("set up: browser driver", provide.browser_driver)

    def _packages(self) -> None:
        self.environment = provide.main_environment()
        provide.package(self.environment, "test")

    def run(self) -> None:
        """Every check, whatever the others say."""
        tool = self.environment.script
        run = functools.partial(self.times.run, go_on=True)
        run("format", lambda: call([tool("ruff"), "format", "--check", "."]))
        run("lint", lambda: call([tool("ruff"), "check", "."]))
        run("types", lambda: call([tool("pyright"), "--pythonpath", self.environment.python]))
        run("import contracts", lambda: call([tool("lint-imports"), "--no-cache"]))
        run("comfy node validate", lambda: packaging_checks.validate(self.comfy))
        run("comfy node pack", lambda: packaging_checks.pack(self.comfy, self.environment.python, self.tree))
        run("the README's main command", self._main_command)
        run("tests", self._tests)

    def _tests(self) -> None:
        env = {"LATENT_CRITIC_COMFYUI": str(self.tree), "LATENT_CRITIC_COMFY_CLI": str(self.comfy)}
        chosen = list(self.pytest)
        if "browser" in self.without:
            say("WITHOUT the browser tests, as asked")
            chosen += ["-m", "not e2e"]
        else:
            env["LATENT_CRITIC_BROWSER"] = str(self.browser)
        workers = min(os.cpu_count() or 1, MOST_WORKERS)
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str((os.cpu_count() or 1) // workers))
        parallel = [f"--numprocesses={workers}", "--dist=loadfile"]
        call([self.environment.script("pytest"), "--durations=15", *parallel, *chosen], env=env)

    def _main_command(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            call([sys.executable, ROOT / ".ci" / "dev.py", "demo", "--out", scratch])
            for name in (SHEET, TABLE):
                if not (Path(scratch) / name).is_file():
                    raise StepFailed(f"the demo wrote no {name}")
            self._keep(Path(scratch) / SHEET)

    def _keep(self, picture: Path) -> None:
        folder = ROOT / ".cache" / "artefacts"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / picture.name)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    show = commands.add_parser("demo", help="a ranked contact sheet, with no checkpoint and no GPU")
    show.add_argument("--out", type=Path, default=Path("latent-critic-demo"), help="folder to write into")
    show.set_defaults(job=demo)
    check = commands.add_parser("test", help="every check that CI runs")
    check.add_argument("--without", action="append", choices=["browser"], default=[], help="leave a part out")
    check.add_argument("pytest", nargs="*", help="after --: arguments for pytest, such as a test's path")
    check.set_defaults(job=test)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONUTF8", "1")
    try:
        return arguments.job(arguments)
    except StepFailed as error:
        say(f"\nfailed: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
