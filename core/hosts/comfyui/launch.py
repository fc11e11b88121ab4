"""Run a module of this package beside ComfyUI's libraries, without ComfyUI's server.

Run as a file, not as a module: ComfyUI must know its device before this package, whose nodes import it, is imported.
ComfyUI's folder is on the path already (PYTHONPATH); nothing here touches sys.path.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import runpy
import sys
from pathlib import Path

#: Starts this file without putting its folder on the path.
_BY_PATH = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` so; its environment needs PYTHONPATH."""
    return [sys.executable, "-c", _BY_PATH, str(Path(__file__).resolve()), module, *arguments]


def start() -> object:
    """Tell ComfyUI to leave the command line alone, and to use the CPU where there is no CUDA.

    Returns:
        Something to keep alive for as long as ComfyUI is used.
    """
    import torch

    kept = _torchvision_operators()
    importlib.import_module("comfy.options").enable_args_parsing(False)
    importlib.import_module("comfy.cli_args").args.cpu = not torch.cuda.is_available()
    return kept


def _torchvision_operators() -> object:
    """PyPI's torchvision cannot load beside a CPU build of torch unless two of its operators are declared before."""
    import torch

    try:
        fits = torch.version.cuda is not None or importlib.metadata.version("torchvision").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return None
    if fits:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def main() -> None:
    """Start, then run the module named first with the other arguments."""
    kept = start()
    sys.argv[:2] = []
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    del kept


if __name__ == "__main__":
    main()
