"""What hangs on a model or stands in its guider, and was not measured to treat every row of a batch by itself.

Guidance runs outside the place where dropped rows are left out, and patches may mix rows or draw from torch's global
generator: both change the winner. So only what was measured beside lone runs (tests/host/test_best_of_guidance.py) is
sampled many seeds at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import comfy.samplers
import torch

#: ComfyUI's own functions that were measured: file, class that defines them, name.
_MEASURED = {
    ("nodes_model_advanced", "RescaleCFG", "rescale_cfg"),
    ("nodes_pag", "PerturbedAttentionGuidance", "post_cfg_function"),
    ("nodes_apg", "APG", "pre_cfg_function"),
    ("nodes_cfg", "CFGZeroStar", "cfg_zero_star"),
    ("nodes_cfg", "CFGNorm", "cfg_norm"),
    ("nodes_freelunch", "FreeU", "output_block_patch"),
    ("nodes_freelunch", "FreeU_V2", "output_block_patch"),
    ("nodes_custom_sampler", "Guider_DualCFG", "predict_noise"),
}
_EXTRAS = Path(comfy.samplers.__file__).resolve().parent.parent / "comfy_extras"
_OURS = __name__.rpartition(".core.hosts.")[0] + "."
#: What a guider may do its own way.
_OF_GUIDERS = ("__call__", "sample", "outer_sample", "inner_sample", "predict_noise")


def unmeasured(guider: Any) -> str:
    """The name of the first such thing, for the user; empty when there is none."""
    for name in _OF_GUIDERS:
        own = getattr(type(guider), name, None)
        if own is not getattr(comfy.samplers.CFGGuider, name, None) and not _is_measured(own):
            return type(guider).__name__
    patcher = guider.model_patcher
    found = [_hung(guider.model_options), _hung(patcher.wrappers), _hung(getattr(patcher, "object_patches", {}))]
    for function in (one for each in found for one in each):
        if not _is_measured(function):
            return _name(function)
    return next((str(key) for key, value in getattr(patcher, "injections", {}).items() if value), "")


def _hung(value: Any) -> Iterator[Any]:
    """All functions in nested options. Callbacks stand beside the sampling, and modules are replaced weights."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "callbacks":
                yield from _hung(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _hung(inner)
    elif callable(value) and not isinstance(value, torch.nn.Module | type):
        yield value


def _is_measured(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    if str(getattr(function, "__module__", "")).startswith(_OURS):
        return True
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    path, words = Path(code.co_filename), function.__qualname__.split(".")
    return path.resolve().parent == _EXTRAS and (path.stem, words[0], words[-1]) in _MEASURED


def _name(function: Any) -> str:
    """That of the node's class where ComfyUI's way of writing nodes shows it."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__name__)).split(".")[0]
