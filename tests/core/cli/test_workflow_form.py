"""Saved workflows into API form: the frontend's own exports are the yardstick, and its small print by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from latent_critic.core.cli.workflow_form import is_api_form, to_api_form
from latent_critic.core.errors import BadInput

INFO = {
    "Load": {"input": {"required": {"name": [["a.png", "b.png"], {"image_upload": True}]}}},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "cfg": ["FLOAT", {}],
                "kind": ["COMBO", {"options": ["euler"]}],
            },
            "optional": {"linked": ["FLOAT", {"forceInput": True}], "text": ["STRING", {}]},
        }
    },
    "Save": {"input": {"required": {"image": ["IMAGE"]}}},
    "Filter": {"input": {"required": {"image": ["IMAGE"], "mask": ["MASK"]}}},
}


def node(number, kind, values=(), inputs=(), outputs=(), mode=0):
    return {
        "id": number,
        "type": kind,
        "mode": mode,
        "widgets_values": list(values) if not isinstance(values, dict) else values,
        "inputs": [{"name": name, "type": type_, "link": link} for name, type_, link in inputs],
        "outputs": [{"name": type_, "type": type_} for type_ in outputs],
    }


def saved(*nodes, links=()):
    return {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4}


def test_widgets_and_links():
    workflow = saved(
        node(1, "Load", ["a.png", "image"], outputs=["IMAGE"]),
        node(2, "Sample", [7, "randomize", 20, 4.5, "euler", "words"], [("model", "MODEL", 5)], ["IMAGE"]),
        links=[[5, 1, 0, 2, 0, "IMAGE"]],
    )
    assert to_api_form(workflow, INFO) == {
        "1": {"class_type": "Load", "inputs": {"name": "a.png"}},
        "2": {
            "class_type": "Sample",
            "inputs": {"seed": 7, "steps": 20, "cfg": 4.5, "kind": "euler", "text": "words", "model": ["1", 0]},
        },
    }


def test_a_converted_widget_takes_its_link():
    workflow = saved(
        node(1, "Load", ["a.png"], outputs=["INT"]),
        node(2, "Sample", [7, "fixed", 20, 4.5, "euler"], [("steps", "INT", 5)]),
        links=[[5, 1, 0, 2, 0, "INT"]],
    )
    assert to_api_form(workflow, INFO)["2"]["inputs"]["steps"] == ["1", 0]


def test_reroutes_primitives_and_bypassed_nodes_are_looked_through():
    workflow = saved(
        node(1, "Load", ["a.png"], outputs=["IMAGE"]),
        node(2, "Reroute", inputs=[("", "*", 10)], outputs=["IMAGE"]),
        node(3, "Filter", inputs=[("mask", "MASK", None), ("image", "IMAGE", 11)], outputs=["IMAGE"], mode=4),
        node(4, "Save", inputs=[("image", "IMAGE", 12)]),
        node(5, "PrimitiveNode", [42, "fixed"], outputs=["INT"]),
        node(6, "Sample", [7, "fixed", 20, 4.5, "euler"], [("seed", "INT", 13)]),
        node(7, "Note", ["hello"]),
        links=[[10, 1, 0, 2, 0, "*"], [11, 2, 0, 3, 1, "*"], [12, 3, 0, 4, 0, "IMAGE"], [13, 5, 0, 6, 0, "INT"]],
    )
    found = to_api_form(workflow, INFO)
    assert set(found) == {"1", "4", "6"}
    assert found["4"]["inputs"]["image"] == ["1", 0]
    assert found["6"]["inputs"]["seed"] == 42


def test_a_muted_node_leaves_and_its_links_with_it():
    workflow = saved(
        node(1, "Load", ["a.png"], outputs=["IMAGE"], mode=2),
        node(2, "Save", inputs=[("image", "IMAGE", 5)]),
        links=[[5, 1, 0, 2, 0, "IMAGE"]],
    )
    assert to_api_form(workflow, INFO) == {"2": {"class_type": "Save", "inputs": {}}}


def test_values_by_name_lists_as_values_and_links_as_objects():
    workflow = {
        "nodes": [
            node(1, "Load", {"name": ["a", "b"]}, outputs=["IMAGE"]),
            node(2, "Save", inputs=[("image", "IMAGE", 5)]),
        ],
        "links": [{"id": 5, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "IMAGE"}],
    }
    found = to_api_form(workflow, INFO)
    assert found["1"]["inputs"]["name"] == {"__value__": ["a", "b"]}
    assert found["2"]["inputs"]["image"] == ["1", 0]


def test_api_form_passes_through():
    prompt = {"3": {"class_type": "Load", "inputs": {"name": "a.png"}}}
    assert is_api_form(prompt)
    assert to_api_form(prompt, INFO) == prompt


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ({}, "a ComfyUI workflow"),
        ([], "a ComfyUI workflow"),
        ({"a": 1}, "a ComfyUI workflow"),
        ({"1": {"class_type": "Nowhere", "inputs": {}}}, "unknown: Nowhere"),
        (saved(node(1, "Nowhere")), "unknown: Nowhere"),
        ({**saved(), "definitions": {"subgraphs": [{"id": "x"}]}}, "Export"),
        (
            saved(
                node(1, "Reroute", inputs=[("", "*", 1)], outputs=["*"]),
                node(2, "Save", inputs=[("image", "IMAGE", 1)]),
                links=[[1, 1, 0, 2, 0, "*"]],
            ),
            "circle",
        ),
    ],
)
def test_bad_workflows(workflow, words):
    with pytest.raises(BadInput, match=words):
        to_api_form(workflow, INFO)


WORKFLOWS = Path(__file__).parents[3] / "workflows"


@pytest.mark.host
@pytest.mark.parametrize("name", sorted(path.name for path in WORKFLOWS.glob("*.json")))
def test_shipped_workflows_become_their_own_api_form(name, comfyui, pack):
    pack("nodes")
    workflow = json.loads((WORKFLOWS / name).read_text(encoding="utf-8"))
    wanted = json.loads((WORKFLOWS / "api" / name).read_text(encoding="utf-8"))
    info = {kind: object_info(comfyui, kind) for kind in {n["class_type"] for n in wanted.values()}}
    found = to_api_form(workflow, info)
    plain = {key: {"class_type": n["class_type"], "inputs": n["inputs"]} for key, n in wanted.items()}
    assert found == plain


def object_info(comfyui, kind):
    node = comfyui.NODE_CLASS_MAPPINGS[kind]
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    return {"input": node.INPUT_TYPES()}
