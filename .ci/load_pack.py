"""Load copies of the pack the way ComfyUI does: `python load_pack.py COMFYUI PACK [PACK …]`, run by ComfyUI's Python.

Prints one JSON object: the folder of each pack → the nodes that ComfyUI registered from it, id → what the node says of
itself. Ends with code 1 when a pack fails to load. One process for all, because starting ComfyUI is what takes time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import comfyui


def load(tree: Path, packs: list[Path]) -> dict[str, dict[str, dict]]:
    """Hand each pack to ComfyUI's own loader.

    Raises:
        RuntimeError: ComfyUI could not load one; its log says why.
    """
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import utils.install_util  # noqa: F401  isort: skip  (first: nodes puts another folder named utils in the way)
    import server  # noqa: F401  isort: skip
    import nodes  # isort: skip

    found = {}
    for pack in packs:
        before = dict(nodes.NODE_CLASS_MAPPINGS)
        if not asyncio.run(nodes.load_custom_node(str(pack))):
            raise RuntimeError(f"ComfyUI could not load {pack}")
        new = {name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if before.get(name) is not node}
        found[pack.name] = {name: describe(node) for name, node in new.items()}
    return found


def describe(node: type) -> dict:
    """A V3 node's schema in plain types, in the schema's order."""
    schema = node.GET_SCHEMA()
    return {
        "name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "hidden": schema.is_deprecated,
        "inputs": [{"id": given.id, "type": given.io_type, "optional": given.optional} for given in schema.inputs],
        "outputs": [{"id": out.id, "name": out.display_name or out.id, "type": out.io_type} for out in schema.outputs],
    }


if __name__ == "__main__":
    keep = comfyui.declare_torchvision_ops()
    sys.stdout.write(json.dumps(load(Path(sys.argv[1]), [Path(name).absolute() for name in sys.argv[2:]])) + "\n")
