"""A workflow of the pack in ComfyUI's real frontend, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Kept after the run; a person looks at it, and the README shows one of them.
PICTURES = ROOT / ".cache" / "artefacts"

pytestmark = [pytest.mark.host, pytest.mark.e2e]


def browser() -> str:
    """The browser that the check script found, or one on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("LATENT_CRITIC_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    assert found, "no browser: run `python3 .ci/dev.py test`, or name one by LATENT_CRITIC_BROWSER"
    return found


def open_workflow(server, workflow: Path, picture: Path) -> dict:
    """What open_workflow.mjs saw."""
    assert (HERE / "node_modules").is_dir(), "no browser driver: run `npm ci` in tests/e2e"
    picture.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["node", str(HERE / "open_workflow.mjs"), server.url, str(workflow), str(picture), browser()],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{server.tail()}"
    return json.loads(done.stdout.splitlines()[-1])


def ours(complaint: dict) -> bool:
    """Whether a browser's complaint is about this pack."""
    return (
        "latent-critic" in (complaint.get("where", "") + complaint["text"]).lower()
        or "LatentCritic" in complaint["text"]
    )
