"""`run-workflow` on a real ComfyUI server: scores, files, errors in words, Ctrl-C, and a server of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from latent_critic.core.cli import comfy_client
from latent_critic.core.cli.comfy_client import ComfyClient, failure_of
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
COPY = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 24, "batch_size": 2, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "run"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


@pytest.fixture
def workflow(tmp_path):
    """Write a workflow file: `workflow(content)` → path."""

    def write(content):
        path = tmp_path / "workflow.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def sampling(checkpoint, steps):
    """A prompt that samples for a while."""
    prompt = json.loads((ROOT / "workflows/api/pick_best_of_a_batch.json").read_text(encoding="utf-8"))
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 1},
        "KSampler": {"steps": steps},
    }
    for node in prompt.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return prompt


@pytest.mark.host
def test_files_come_back_and_nothing_is_overwritten(cli, comfyui_server, workflow, tmp_path):
    for _ in range(2):
        code, out, err = cli("run-workflow", workflow(COPY), "--server", comfyui_server.url, "--out", tmp_path / "o")
        assert code == 0, err
        assert "no scores" in out
    saved = sorted((tmp_path / "o").glob("*.png"))
    assert len(saved) == 4
    assert len(list((tmp_path / "o" / "preview").glob("*.png"))) >= 2
    with Image.open(saved[0]) as picture:
        assert picture.size == (32, 24)


@pytest.mark.host
@pytest.mark.parametrize("form", ["api/score_a_folder.json", "score_a_folder.json"])
def test_scores_are_printed_from_both_forms(cli, comfyui_server, workflow, tmp_path, form):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(pictures / f"p{number}.png")
    content = json.loads((ROOT / "workflows" / form).read_text(encoding="utf-8"))
    if "nodes" in content:
        (loader,) = (node for node in content["nodes"] if node["type"] == "LatentCriticLoadFolder")
        loader["widgets_values"][0] = str(pictures)
    else:
        (loader,) = (node for node in content.values() if node["class_type"] == "LatentCriticLoadFolder")
        loader["inputs"]["folder"] = str(pictures)
    code, out, err = cli("run-workflow", workflow(content), "--server", comfyui_server.url, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found
    for rows in found.values():
        assert sorted(row["index"] for row in rows) == [0, 1, 2]
        assert all(0 <= row["score"] <= 100 for row in rows)
    code, out, _ = cli("run-workflow", workflow(content), "--server", comfyui_server.url)
    assert code == 0
    assert "p1.png" in out or "p1" in out


@pytest.mark.host
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"1": {"class_type": "EmptyImage", "inputs": {"width": "wide", "height": 8, "batch_size": 1, "color": 0}}},
         "node 1 (EmptyImage)"),
        ({"2": {"class_type": "EmptyImage", "inputs": {}}, "3": COPY["1"]}, "no outputs"),
    ],
)  # fmt: skip
def test_a_refused_workflow_is_explained(cli, comfyui_server, workflow, change, words):
    code, out, err = cli("run-workflow", workflow({**COPY, **change}), "--server", comfyui_server.url)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


@pytest.mark.host
def test_a_part_that_comfyui_leaves_out_is_told(cli, comfyui_server, workflow, tmp_path):
    prompt = {**COPY, "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}}
    code, _, err = cli("run-workflow", workflow(prompt), "--server", comfyui_server.url, "--out", tmp_path / "o")
    assert code == 1
    assert "node 2 (SaveImage)" in err
    assert "images" in err
    assert len(list((tmp_path / "o" / "preview").glob("*.png"))) == 2


@pytest.mark.host
def test_a_failing_node_is_named(cli, comfyui_server, workflow, tmp_path):
    prompt = {
        "1": {"class_type": "LatentCriticLoadFolder", "inputs": {"folder": str(tmp_path), "start": 0, "limit": 9}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    code, _, err = cli("run-workflow", workflow(prompt), "--server", comfyui_server.url)
    assert code != 0
    assert "LatentCriticLoadFolder" in err


@pytest.mark.host
def test_ctrl_c_ends_the_prompt_on_the_server(cli, comfyui_server, sd15_checkpoint, workflow, monkeypatch):
    client = ComfyClient(comfyui_server.url)
    running, pause = [], time.sleep

    def sleep(seconds):
        if running:
            pause(seconds)
            return
        queue = client.get("/queue")
        running[:] = [item[1] for item in queue["queue_running"]]
        if running:
            raise KeyboardInterrupt

    monkeypatch.setattr(comfy_client.time, "sleep", sleep)
    code, _, err = cli("run-workflow", workflow(sampling(sd15_checkpoint, 5000)), "--server", comfyui_server.url)
    monkeypatch.undo()
    assert code == 130, err
    entry = client.wait(running[0])
    assert "interrupted" in failure_of(entry)


def test_an_interrupt_that_is_forgotten_is_sent_again(monkeypatch):
    """ComfyUI drops one that comes while a prompt begins."""
    looks, sent = [1, 1, 1, 0], []

    class Forgetful(ComfyClient):
        def get(self, path):
            return {"queue_running": [[0, "mine"]] * looks.pop(0)}

        def post(self, path, payload):
            sent.append(path)

    monkeypatch.setattr(comfy_client.time, "sleep", lambda _: None)
    Forgetful("here:1").stop("mine")
    assert sent == ["/queue", *["/interrupt"] * 3]


@pytest.mark.host
def test_a_server_of_its_own_is_started_and_ended(comfyui_folder, workflow, tmp_path):
    # torchvision's binary may not fit torch on a test machine; the project's starter declares what is missing.
    own = tmp_path / "comfyui"
    own.mkdir()
    start = [str(ROOT / ".ci" / "serve.py"), str(comfyui_folder), "--base-directory", str(own)]
    (own / "main.py").write_text(
        f"import os, sys\nos.execv(sys.executable, [sys.executable, *{start!r}, *sys.argv[1:]])\n"
    )
    for folder in ("input", "output", "temp", "user", "models", "custom_nodes"):
        (own / folder).mkdir()
    options = ["--cpu", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from latent_critic.core.cli.main import main; sys.exit(main())",
         "run-workflow", workflow(COPY), "--comfyui", own, *(f"--comfyui-option={part}" for part in options),
         "--out", tmp_path / "o"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "o").glob("*.png"))) == 2


def test_a_comfyui_that_does_not_start_shows_its_log(cli, workflow, tmp_path):
    (tmp_path / "main.py").write_text("raise SystemExit('no such device')")
    code, _, err = cli("run-workflow", workflow(COPY), "--comfyui", tmp_path)
    assert code == 2
    assert "no such device" in err


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("{", [], "a workflow (JSON)"),
        (COPY, ["--server", "http://127.0.0.1:1"], "a ComfyUI server at http://127.0.0.1:1"),
        (COPY, ["--server", "http://"], "a ComfyUI server"),
        (COPY, ["--comfyui", "/nowhere"], "main.py"),
        (COPY, ["--comfyui-option=--cpu"], "--comfyui DIR"),
    ],
)
def test_bad_input(cli, workflow, content, arguments, words):
    code, out, err = cli("run-workflow", workflow(content), *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_missing_file(cli, tmp_path):
    code, _, err = cli("run-workflow", tmp_path / "gone.json")
    assert code == 2
    assert "no such file" in err


def test_failures_read_as_words():
    assert failure_of({"status": {"status_str": "success", "messages": []}}) is None
    data = {
        "node_id": "3",
        "node_type": "KSampler",
        "exception_type": "builtins.ValueError",
        "exception_message": "x\n",
    }
    entry = {"status": {"status_str": "error", "messages": [["execution_start", {}], ["execution_error", data]]}}
    assert failure_of(entry) == "node 3 (KSampler): ValueError: x"
    assert failure_of({"status": {"status_str": "error"}}).startswith("an error")
