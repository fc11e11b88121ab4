"""One real server: prompts over HTTP, the files that the frontend asks for, and ComfyUI's own command line."""

import json
import math
import os
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICK_BEST = "LatentCriticPickBest"

pytestmark = pytest.mark.host


def prompt(checkpoint, batch=3):
    """Sample a small batch with the stock nodes; the built-in judge picks the best."""
    texts = {"2": "a photograph of a lighthouse", "3": ""}
    nodes = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": batch}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": 11,
                "steps": 2,
                "cfg": 4.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": PICK_BEST, "inputs": {"images": ["6", 0], "keep": 1}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "best"}},
    }
    encode = {
        key: {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": t}} for key, t in texts.items()
    }
    return nodes | encode


def comfy_cli():
    """ComfyUI's command line: the one that the check script made, or one on the PATH."""
    own = ROOT / ".venv-comfy-cli" / ("Scripts/comfy.exe" if os.name == "nt" else "bin/comfy")
    found = os.environ.get("LATENT_CRITIC_COMFY_CLI") or (str(own) if own.exists() else shutil.which("comfy"))
    assert found, "no comfy-cli: run `python3 .ci/dev.py test`, or name it by LATENT_CRITIC_COMFY_CLI"
    return found


def test_scores_are_in_the_history_of_a_posted_prompt(comfyui_server, sd15_checkpoint):
    entry = comfyui_server.run(prompt(sd15_checkpoint))
    assert entry["status"]["status_str"] == "success", entry["status"]
    ui = entry["outputs"]["7"]
    values = [row["score"] for row in ui["scores"]]
    assert len(values) == 3
    assert all(isinstance(value, float) and math.isfinite(value) for value in values)
    assert values == sorted(values, reverse=True)
    assert sorted(row["index"] for row in ui["scores"]) == [0, 1, 2]
    assert ui["spec"][0]["name"] == "judge"
    assert len(ui["images"]) == 3
    saved = entry["outputs"]["8"]["images"]
    assert len(saved) == 1
    assert (comfyui_server.base / "output" / saved[0]["filename"]).stat().st_size > 0


def test_the_same_prompt_scores_the_same_again(comfyui_server, sd15_checkpoint):
    other = prompt(sd15_checkpoint)
    first = comfyui_server.run(other)["outputs"]["7"]["scores"]
    comfyui_server.post("free", {"unload_models": True, "free_memory": True})
    again = comfyui_server.run(prompt(sd15_checkpoint))["outputs"]["7"]["scores"]
    assert [row["score"] for row in again] == pytest.approx([row["score"] for row in first], abs=1e-3)


def test_comfy_run_takes_the_workflow(comfyui_server, sd15_checkpoint, tmp_path):
    file = tmp_path / "pick best.json"
    file.write_text(json.dumps(prompt(sd15_checkpoint, batch=2)), encoding="utf-8")
    command = [comfy_cli(), "--skip-prompt", "run", "--workflow", str(file), "--wait"]
    command += ["--host", "127.0.0.1", "--port", str(comfyui_server.port), "--timeout", "300"]
    before = comfyui_server.get("history")
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "DO_NOT_TRACK": "1", "NO_COLOR": "1"},
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{comfyui_server.tail()}"
    (new,) = comfyui_server.get("history").keys() - before.keys()
    entry = comfyui_server.get(f"history/{new}")[new]
    assert entry["status"]["status_str"] == "success"
    assert len(entry["outputs"]["7"]["scores"]) == 2


def test_every_node_is_offered_with_a_help_page(comfyui_server):
    ours = {name: node for name, node in comfyui_server.get("object_info").items() if name.startswith("LatentCritic")}
    assert PICK_BEST in ours
    for name, node in ours.items():
        assert node["category"].split("/")[0] == "Latent Critic"
        assert node["description"]
        page = comfyui_server.read(f"extensions/latent-critic/docs/{name}.md").decode()
        assert page.startswith("#"), f"{name} has no help page"


def test_the_template_browser_gets_every_workflow(comfyui_server):
    offered = comfyui_server.get("workflow_templates")["latent-critic"]
    files = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert files
    assert set(offered) == files
    for name in offered:
        quoted = urllib.parse.quote(name)
        graph = json.loads(comfyui_server.read(f"api/workflow_templates/latent-critic/{quoted}.json"))
        assert graph["nodes"], f"{name} is no workflow of the frontend's form"


def test_translations_reach_the_frontend(comfyui_server):
    known = comfyui_server.get("i18n")["en"]["nodeDefs"]
    ours = {name for name in comfyui_server.get("object_info") if name.startswith("LatentCritic")}
    assert ours <= known.keys()
