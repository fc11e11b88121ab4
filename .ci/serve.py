"""Start a ComfyUI server: `python serve.py COMFYUI [arguments of its main.py]`, run by ComfyUI's Python.

Only for machines whose torchvision does not fit their torch (see comfyui.declare_torchvision_ops); elsewhere this is
`python main.py`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import comfyui

if __name__ == "__main__":
    keep = comfyui.declare_torchvision_ops()
    tree = Path(sys.argv[1]).resolve()
    sys.argv = [str(tree / "main.py"), *sys.argv[2:]]
    sys.path[0] = str(tree)
    os.chdir(tree)
    runpy.run_path(sys.argv[0], run_name="__main__")
