"""A ComfyUI workflow as the frontend saves it → the API form that a server runs.

The server's own description of its nodes (``/object_info``) says which values of a saved node belong to which input.
Handled as the frontend handles them: reroutes, primitives, notes, muted and bypassed nodes, the extra value that
follows a seed. A workflow with subgraphs must be exported in API form by the frontend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadInput

ApiPrompt = dict[str, dict[str, Any]]

_MUTED, _BYPASSED = 2, 4
_TEXT_ONLY = frozenset({"Note", "MarkdownNote"})
_WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_AFTER_A_SEED = frozenset({"fixed", "increment", "decrement", "randomize"})
_EXPORT = "In ComfyUI choose Workflow > Export (API), and run that file."


def is_api_form(workflow: Any) -> bool:
    """Whether this is a map of node id → {class_type, inputs}."""
    return (
        isinstance(workflow, dict)
        and bool(workflow)
        and all(isinstance(node, dict) and "class_type" in node for node in workflow.values())
    )


def to_api_form(workflow: Any, object_info: Mapping[str, Any]) -> ApiPrompt:
    """Either form → the API form.

    Args:
        workflow: Parsed JSON.
        object_info: What the server's ``/object_info`` says.

    Raises:
        BadInput: no workflow, nodes that the server does not have, or a form that only the frontend can convert.
    """
    if is_api_form(workflow):
        _check_known({node["class_type"] for node in workflow.values()}, object_info)
        return {str(key): dict(node) for key, node in workflow.items()}
    if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
        raise BadInput("a ComfyUI workflow (saved or API form)", "other JSON", _EXPORT)
    if workflow.get("definitions", {}).get("subgraphs"):
        raise BadInput("a workflow without subgraphs", "subgraphs, which the frontend unfolds", _EXPORT)
    return _Saved(workflow, object_info).convert()


def _check_known(types: set[str], object_info: Mapping[str, Any]) -> None:
    unknown = sorted(types - set(object_info))
    if unknown:
        raise BadInput(
            "nodes that this ComfyUI has", f"unknown: {', '.join(unknown)}", "Install their node packs on that server."
        )


class _Saved:
    """A workflow in the form that the frontend saves."""

    def __init__(self, workflow: dict[str, Any], object_info: Mapping[str, Any]) -> None:
        self.info = object_info
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links = dict(_link(link) for link in workflow.get("links", []))

    def convert(self) -> ApiPrompt:
        live = [node for node in self.nodes.values() if node.get("mode", 0) not in (_MUTED, _BYPASSED)]
        real = [node for node in live if node["type"] not in _TEXT_ONLY | {"Reroute", "PrimitiveNode"}]
        _check_known({node["type"] for node in real}, self.info)
        return {
            str(node["id"]): {"class_type": node["type"], "inputs": {**self._widgets(node), **self._linked(node)}}
            for node in real
        }

    def _widgets(self, node: dict[str, Any]) -> dict[str, Any]:
        values = node.get("widgets_values", [])
        specs = _widget_specs(self.info[node["type"]])
        if isinstance(values, dict):
            return {name: _plain(values[name]) for name in specs if name in values}
        found: dict[str, Any] = {}
        place = 0
        for name, options in specs.items():
            if place >= len(values):
                break
            found[name] = _plain(values[place])
            place += 1
            follows = options.get("control_after_generate") or name in ("seed", "noise_seed")
            if follows and place < len(values) and values[place] in _AFTER_A_SEED:
                place += 1
        return found

    def _linked(self, node: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                source = self._source(socket["link"])
                if source is not None:
                    found[socket["name"]] = source
        return found

    def _source(self, link: int) -> Any:
        """Where a link really starts: [node id, output], the value of a primitive, or None when it leads nowhere."""
        for _ in range(len(self.nodes) + 1):
            if link not in self.links:
                return None
            origin, output = self.links[link]
            node = self.nodes.get(origin)
            if node is None or node.get("mode", 0) == _MUTED:
                return None
            if node["type"] == "PrimitiveNode":
                return _plain(node["widgets_values"][0])
            if node["type"] == "Reroute":
                through = node["inputs"][0].get("link")
            elif node.get("mode", 0) == _BYPASSED:
                through = _through(node, output)
            else:
                return [str(origin), output]
            if through is None:
                return None
            link = through
        raise BadInput("a workflow whose links end somewhere", "reroutes in a circle", _EXPORT)


def _link(link: Any) -> tuple[int, tuple[int, int]]:
    """Link id → (node, output), from a saved list or object."""
    if isinstance(link, dict):
        return link["id"], (link["origin_id"], link["origin_slot"])
    return link[0], (link[1], link[2])


def _through(node: dict[str, Any], output: int) -> int | None:
    """The link that a bypassed node passes on at an output: its own place first, then the first of the same type."""
    wanted = node["outputs"][output]["type"]
    inputs = node.get("inputs", [])
    for socket in [*inputs[output : output + 1], *inputs]:
        if socket["type"] == wanted and socket.get("link") is not None:
            return socket["link"]
    return None


def _widget_specs(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The inputs of a node type that have a widget, in the order in which their values are saved."""
    found: dict[str, dict[str, Any]] = {}
    for part in ("required", "optional"):
        for name, spec in info.get("input", {}).get(part, {}).items():
            kind, options = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
            if (isinstance(kind, list) or kind in _WIDGETS) and not options.get("forceInput"):
                found[name] = options
    return found


def _plain(value: Any) -> Any:
    """A widget's value as the API form spells it: a bare list would be read as a link."""
    return {"__value__": value} if isinstance(value, list) else value
