"""The pack's subgraphs in ComfyUI's real frontend: offered, opened, and run behind a checkpoint."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "subgraphs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

pytestmark = [pytest.mark.host, pytest.mark.e2e]

_spec = importlib.util.spec_from_file_location("latent_critic_e2e_browser", HERE / "test_browser.py")
assert _spec is not None
assert _spec.loader is not None
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


def plain(number: int, kind: str, outputs: list[str], values: list[object]) -> dict:
    """A node of ComfyUI's own that needs no links."""
    shown = [{"name": name, "type": name, "links": []} for name in outputs]
    place = {"pos": [0, 250 * number], "size": [300, 200], "flags": {}, "order": number, "mode": 0, "properties": {}}
    return {"id": number, "type": kind, "inputs": [], "outputs": shown, "widgets_values": values, **place}


def behind_a_checkpoint(name: str, checkpoint: str) -> dict:
    """A workflow: checkpoint, prompts, an empty latent, the subgraph."""
    whole = json.loads((FOLDER / f"{name}.json").read_text(encoding="ascii"))
    (outer,), (inner,) = whole["nodes"], whole["definitions"]["subgraphs"]
    for node in inner["nodes"]:  # quick and small; the rest is as shipped
        for at, value in enumerate(node["widgets_values"]):
            if value == 20:
                node["widgets_values"][at] = 2
    outer.update(id=100, pos=[500, 0])
    checkpoint_node = plain(1, "CheckpointLoaderSimple", ["MODEL", "CLIP", "VAE"], [checkpoint])
    texts = [plain(number, "CLIPTextEncode", ["CONDITIONING"], ["a lighthouse"]) for number in (2, 3)]
    latent = plain(4, "EmptyLatentImage", ["LATENT"], [64, 64, 1])
    nodes = [checkpoint_node, *texts, latent, outer]
    links: list[list[object]] = []

    def join(source: dict, slot: int, target: dict, field: dict) -> None:
        number = len(links) + 1
        kind = source["outputs"][slot]["type"]
        links.append([number, source["id"], slot, target["id"], target["inputs"].index(field), kind])
        source["outputs"][slot]["links"].append(number)
        field["link"] = number

    for text in texts:
        text["inputs"].append({"name": "clip", "type": "CLIP", "link": None})
        join(checkpoint_node, 1, text, text["inputs"][0])
    sources = {
        "model": (checkpoint_node, 0),
        "positive": (texts[0], 0),
        "negative": (texts[1], 0),
        "latent_image": (latent, 0),
        "vae": (checkpoint_node, 2),
    }
    for field in outer["inputs"]:
        if field["name"] in sources:
            join(*sources[field["name"]], outer, field)
    return {**whole, "nodes": nodes, "links": links, "last_node_id": 100, "last_link_id": len(links)}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_subgraph_is_offered_and_runs(comfyui_server, sd15_checkpoint, tmp_path, name):
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(behind_a_checkpoint(name, sd15_checkpoint)), encoding="utf-8")
    picture = browser.PICTURES / f"subgraph {name}.png"
    seen = browser.open_workflow(comfyui_server, file, picture)
    assert set(NAMES) <= set(seen["blueprints"])
    assert seen["missing"] == []
    assert seen["status"] == "success", comfyui_server.tail()
    assert [complaint for complaint in seen["complaints"] if browser.ours(complaint)] == []
    texts = [text for node in seen["shown"] for text in node["texts"]]
    assert any(words in text for text in texts for words in ("images scored", "stopped because", "candidates finished"))
