"""Load copies of the pack the way ComfyUI does: `python load_pack.py COMFYUI PACK [PACK …]`, run by ComfyUI's Python.

Prints one JSON object: the folder of each pack → the ids of the nodes that ComfyUI registered from it. Ends with code 1
when a pack fails to load. One process for all, because starting ComfyUI is what takes time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import comfyui


def load(tree: Path, packs: list[Path]) -> dict[str, list[str]]:
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
        found[pack.name] = sorted(
            name for name, node in nodes.NODE_CLASS_MAPPINGS.items() if before.get(name) is not node
        )
    return found


if __name__ == "__main__":
    keep = comfyui.declare_torchvision_ops()
    sys.stdout.write(json.dumps(load(Path(sys.argv[1]), [Path(name).absolute() for name in sys.argv[2:]])) + "\n")
