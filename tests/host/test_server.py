"""One real server: prompts over HTTP, the files that the frontend asks for, and ComfyUI's own command line."""

import json
import math
import os
import shutil
import subprocess
import time
import urllib.parse
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICK_BEST = "LatentCriticPickBest"

pytestmark = pytest.mark.host


def prompt(checkpoint, batch=3, seed=1):
    """The first shipped workflow in API form, with the checkpoint that is here and small pictures."""
    nodes = json.loads((ROOT / "workflows/api/pick_best_of_a_batch.json").read_text(encoding="utf-8"))
    changes = {
        "CheckpointLoaderSimple": {"ckpt_name": checkpoint},
        "EmptyLatentImage": {"width": 128, "height": 128, "batch_size": batch},
        "KSampler": {"steps": 2, "seed": seed},
    }
    for node in nodes.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return nodes


def shown_by(entry, nodes, kind):
    """The ``ui`` result of the one node of a kind, from an entry of /history."""
    (key,) = (key for key, node in nodes.items() if node["class_type"] == kind)
    return entry["outputs"][key]


def comfy_cli():
    """ComfyUI's command line: the one that the check script made, or one on the PATH."""
    own = ROOT / ".venv-comfy-cli" / ("Scripts/comfy.exe" if os.name == "nt" else "bin/comfy")
    found = os.environ.get("LATENT_CRITIC_COMFY_CLI") or (str(own) if own.exists() else shutil.which("comfy"))
    assert found, "no comfy-cli: run `python3 .ci/dev.py test`, or name it by LATENT_CRITIC_COMFY_CLI"
    return found


def test_scores_are_in_the_history_of_a_posted_prompt(comfyui_server, sd15_checkpoint):
    nodes = prompt(sd15_checkpoint)
    entry = comfyui_server.run(nodes)
    assert entry["status"]["status_str"] == "success", entry["status"]
    shown = shown_by(entry, nodes, PICK_BEST)
    values = [row["score"] for row in shown["scores"]]
    assert len(values) == 3
    assert all(isinstance(value, float) and math.isfinite(value) for value in values)
    assert values == sorted(values, reverse=True)
    assert sorted(row["index"] for row in shown["scores"]) == [0, 1, 2]
    assert shown["spec"][0]["name"] == "judge"
    assert len(shown["images"]) == 3
    saved = shown_by(entry, nodes, "SaveImage")["images"]
    assert len(saved) == 1
    assert (comfyui_server.base / "output" / saved[0]["subfolder"] / saved[0]["filename"]).stat().st_size > 0


def _run_afresh(server, nodes):
    """Run again with an empty cache; the server empties it when its worker comes round to it, not at once."""
    for _ in range(20):
        server.post("free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)
        entry = server.run(nodes)
        if entry["outputs"]:
            return entry
    raise AssertionError("the server never emptied its cache")


def test_the_same_prompt_scores_the_same_again(comfyui_server, sd15_checkpoint):
    nodes = prompt(sd15_checkpoint, seed=2)  # not in the server's cache, so that it really runs
    first = shown_by(comfyui_server.run(nodes), nodes, PICK_BEST)["scores"]
    again = shown_by(_run_afresh(comfyui_server, nodes), nodes, PICK_BEST)["scores"]
    assert [row["score"] for row in again] == pytest.approx([row["score"] for row in first], abs=1e-3)


def test_comfy_run_takes_the_workflow(comfyui_server, sd15_checkpoint, tmp_path):
    file = tmp_path / "pick best.json"
    nodes = prompt(sd15_checkpoint, batch=2)
    file.write_text(json.dumps(nodes), encoding="utf-8")
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
    assert len(shown_by(entry, nodes, PICK_BEST)["scores"]) == 2


def test_every_node_is_offered_with_a_help_page(comfyui_server):
    ours = {name: node for name, node in comfyui_server.get("object_info").items() if name.startswith("LatentCritic")}
    assert PICK_BEST in ours
    for name, node in ours.items():
        assert node["category"].split("/")[0] == "Latent Critic"
        assert node["description"]
        assert (ROOT / "web/docs" / f"{name}.md").is_file(), f"{name} has no help page"
        assert comfyui_server.read(f"extensions/latent-critic/docs/{name}.md").startswith(b"#")


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
