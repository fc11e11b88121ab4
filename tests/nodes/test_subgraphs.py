"""Every shipped subgraph: it fits the installed nodes, and runs in the real executor."""

import json
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.host
FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
INPUT, OUTPUT = -10, -20
#: KSampler's widgets that make it quick.
SMALL = {"steps": 1, "max_attempts": 2}


def read(name):
    whole = json.loads(
        (FOLDER / f"{name}.json").read_text(encoding="ascii")
    )  # ComfyUI 0.3.75 reads it as the system has
    (outer,), (inner,) = whole["nodes"], whole["definitions"]["subgraphs"]
    return outer, inner


def values_of(node):
    """A node's saved widgets by name."""
    values = iter(node["widgets_values"])
    found = {}
    for field in node["inputs"]:
        if "widget" in field:
            found[field["name"]] = next(values)
            if field["name"] == "seed":
                found["control_after_generate"] = next(values)
    assert list(values) == [], node["type"]
    return found


def as_prompt(inner, sockets, **widgets):
    """The nodes inside in API form, as the frontend sends them; `sockets` are links from outside by name."""
    links = {link["id"]: link for link in inner["links"]}
    prompt = {}
    for node in inner["nodes"]:
        inputs = values_of(node)
        inputs.pop("control_after_generate", None)
        inputs |= {name: value for name, value in {**SMALL, **widgets}.items() if name in inputs}
        for field in node["inputs"]:
            if field["link"] is None:
                continue
            link = links[field["link"]]
            if link["origin_id"] != INPUT:
                inputs[field["name"]] = [f"in:{link['origin_id']}", link["origin_slot"]]
            elif inner["inputs"][link["origin_slot"]]["name"] in sockets:
                inputs[field["name"]] = sockets[inner["inputs"][link["origin_slot"]]["name"]]
        prompt[f"in:{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@pytest.fixture
def run(run_workflow, comfyui):
    """Run a subgraph behind a tiny model; gives the Run, with its outputs in `kept`."""

    def go(name, **widgets):
        _, inner = read(name)
        start = {
            "1": {"class_type": "TestTinyCheckpoint", "inputs": {"family": "sd15", "seed": 0}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
            "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
        }
        sockets = {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
            "vae": ["1", 2],
        }
        prompt = {**start, **as_prompt(inner, sockets, **widgets)}
        ends = {link["target_slot"]: link for link in inner["links"] if link["target_id"] == OUTPUT}
        for slot, output in enumerate(inner["outputs"]):
            value = [f"in:{ends[slot]['origin_id']}", ends[slot]["origin_slot"]]
            inputs = {"name": output["name"], "value": value}
            prompt[f"keep {output['name']}"] = {"class_type": "TestKeep", "inputs": inputs}
        found = run_workflow(prompt)
        assert found.success, found.error
        return found

    return go


def test_the_stories_are_there():
    assert len(NAMES) >= 3
    assert all(name.endswith("(Latent Critic)") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_node_that_holds_a_graph(name):
    outer, inner = read(name)
    assert outer["type"] == inner["id"]
    assert outer["title"] == inner["name"] == name
    assert inner["category"] == "Latent Critic"
    assert inner["description"]
    for side in ("inputs", "outputs"):
        assert [(field["name"], field["type"]) for field in outer[side]] == [
            (field["name"], field["type"]) for field in inner[side]
        ]
    nodes = {node["id"]: node for node in inner["nodes"]}
    assert inner["state"]["lastNodeId"] == max(nodes)
    assert inner["state"]["lastLinkId"] == max(link["id"] for link in inner["links"])
    for number, widget in outer["properties"]["proxyWidgets"]:
        if number == "-1":
            assert widget in {field["name"] for field in outer["inputs"] if "widget" in field}
        else:
            assert widget in values_of(nodes[int(number)])


@pytest.mark.parametrize("name", NAMES)
def test_its_links_join_what_they_say(name):
    _, inner = read(name)
    nodes = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        if link["origin_id"] == INPUT:
            source = inner["inputs"][link["origin_slot"]]
            assert link["id"] in source["linkIds"]
        else:
            source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in source["links"]
        if link["target_id"] == OUTPUT:
            target = inner["outputs"][link["target_slot"]]
            assert target["linkIds"] == [link["id"]]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == link["id"]
        assert source["type"] == link["type"]
        assert "*" in (source["type"], target["type"]) or source["type"] == target["type"]


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_the_installed_nodes(name, comfyui, pack):
    pack()
    for node in read(name)[1]["nodes"]:
        kind = comfyui.NODE_CLASS_MAPPINGS[node["type"]]
        saved = [output["type"] for output in node["outputs"]]
        assert [str(found) for found in kind.RETURN_TYPES][: len(saved)] == saved
        if hasattr(kind, "GET_SCHEMA"):
            schema = kind.GET_SCHEMA()
            assert {field["name"] for field in node["inputs"]} == {field.id for field in schema.inputs}
            assert [output["name"] for output in node["outputs"]] == [out.display_name for out in schema.outputs]


def side_of(images):
    return [tuple(image.shape[1:3]) for image in images]


def test_reroll_upscales_only_what_passed(run):
    name = "Reroll Until Good, Then Upscale (Latent Critic)"
    good, bad = run(name, threshold=0.0), run(name, threshold=100.0)
    assert (side_of(good.kept["image"]), good.kept["passed"]) == ([(96, 96)], [True])
    assert (side_of(bad.kept["image"]), bad.kept["passed"]) == ([(64, 64)], [False])
    assert "stopped because" in bad.kept["log"][0]


def test_pick_the_best_of_a_batch(run):
    found = run("Pick the Best of a Batch (Latent Critic)")
    assert [len(image) for image in found.kept["best"]] == [1]
    assert len(found.kept["best latents"][0]["samples"]) == 1
    assert found.kept["best score"] == [max(found.kept["scores"][0].values())]


def test_the_overnight_queue_upscales_only_the_kept(run, comfyui_base):
    output = comfyui_base / "output"
    widgets = {"session": "subgraph/night", "top_k": 1, "filename_pattern": "subgraph/up/%score%"}
    counts = []
    for seed in range(3):
        found = run("Overnight Queue (Latent Critic)", seed=seed, **widgets)
        counts += found.kept["seen"]
        if "upscaled" in found.kept:
            assert side_of(found.kept["upscaled"]) == [(96, 96)]
    assert counts == [2, 4, 6]  # two images a run
    (best,) = (output / "subgraph/night/best").iterdir()
    with Image.open(best) as picture:
        assert picture.size == (64, 64)
    upscaled = list((output / "subgraph/up").glob("*.png"))
    assert 1 <= len(upscaled) <= 3
    lines = (output / "subgraph/up/latent_critic.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(upscaled)


def test_best_of_16(run):
    found = run("Best of 16 (Latent Critic)", n=4, steps=2, looks="0.5", shares="0.5")
    assert [len(image) for image in found.kept["image"]] == [1]
    assert found.kept["seed"][0] in range(4)
    assert found.kept["noise"][0]["samples"].shape == found.kept["latent"][0]["samples"].shape
    assert "Look after step 1 of 2" in found.kept["log"][0]
