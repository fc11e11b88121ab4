"""A workflow of the pack in ComfyUI's real frontend, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import skimage.data
from PIL import Image, ImageFilter

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
    """Whether a browser's complaint is about this pack; the frontend's own calls to its makers' server are not."""
    text = complaint.get("where", "") + complaint["text"]
    return "latent" in text.lower() and "critic" in text.lower() and "Content Security Policy" not in text


def fitted(file: Path, target: Path, checkpoint: str, folder: str) -> Path:
    """A shipped workflow with the checkpoint and the folder that are here, and small pictures; nothing else changed."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    for node in graph["nodes"]:
        values = node.get("widgets_values")
        if node["type"] == "CheckpointLoaderSimple":
            values[0] = checkpoint
        elif node["type"] == "EmptyLatentImage":
            values[:2] = 128, 128
        elif node["type"] in ("KSampler", "LatentCriticReroll", "LatentCriticBestOfN"):
            values[2] = 2
        elif node["type"] == "LatentCriticLoadFolder":
            values[0] = folder
        elif node["type"] == "LatentCriticFitHead":
            values[3], values[4], values[7] = "single level", 1, 64
    target.write_text(json.dumps(graph), encoding="utf-8")
    return target


def write_samples(folder: Path) -> None:
    """Three photographs in the public domain or under CC0, each whole and damaged in its own way."""
    folder.mkdir(parents=True)
    for name in ("astronaut", "chelsea", "coffee"):
        whole = Image.fromarray(getattr(skimage.data, name)()).resize((480, 360), Image.Resampling.LANCZOS)
        whole.save(folder / f"{name}.png")
        if name == "chelsea":
            whole.save(folder / f"{name} jpeg.jpg", quality=4)
        else:
            whole.filter(ImageFilter.GaussianBlur(3)).save(folder / f"{name} blurred.png")


#: They begin with a head that the user has made before: tests/nodes/test_workflows.py makes one and runs them.
OF_A_HEAD = {"score_while_sampling"}
STORIES = sorted({path.stem for path in (ROOT / "workflows").glob("*.json")} - OF_A_HEAD)


@pytest.mark.parametrize("story", STORIES)
def test_a_shipped_workflow_runs_in_the_frontend(comfyui_server, sd15_checkpoint, tmp_path, story):
    samples = comfyui_server.base / "input" / "samples"
    if not samples.exists():
        write_samples(samples)
    workflow = fitted(ROOT / "workflows" / f"{story}.json", tmp_path / "workflow.json", sd15_checkpoint, "samples")
    picture = PICTURES / f"workflow {story}.png"
    seen = open_workflow(comfyui_server, workflow, picture)
    assert seen["missing"] == []
    assert seen["status"] == "success", comfyui_server.tail()
    assert [complaint for complaint in seen["complaints"] if ours(complaint)] == []
    shown = [node for node in seen["shown"] if node["pictures"]]
    assert shown, "no node of ours shows a picture on the page"
    texts = [text for node in shown for text in node["texts"]]
    words = ("images scored", "stopped because", "candidates finished")
    assert any(word in text for text in texts for word in words), shown
    assert picture.stat().st_size > 20_000
    assert bool(seen["sessions"]) == ("LatentCriticKeepBest" in seen["nodes"])
    assert all(after == f"{before} 2" for before, after in seen["sessions"])
