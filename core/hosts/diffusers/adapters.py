"""What lies over a pipeline's weights and changes what they give: LoRA and its kin, FreeU, foreign attention."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

#: Parameters that stand beside a checkpoint's own: fused projections, which hold copies, and an IP-Adapter's.
_BESIDE = re.compile(r"\.to_(qkv|kv|added_qkv)\.|\.to_[kv]_ip\.")
#: Attention processors of diffusers that compute something else.
_OTHER_ATTENTION = ("PAG", "IPAdapter")
_FREEU = ("s1", "s2", "b1", "b2")
#: Adapters' matrices looked at, and values read from each.
_MATRICES, _VALUES = 32, 8


def own_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The checkpoint's parameters, under the names that they have without adapters."""
    adapters = {
        id(parameter)
        for layer in _wrapped(network).values()
        for name, parameter in layer.named_parameters()
        if not name.startswith("base_layer.")
    }
    for name, parameter in network.named_parameters():
        if id(parameter) not in adapters and not _BESIDE.search(name):
            yield name.replace(".base_layer.", "."), parameter


def merged(network: nn.Module) -> dict[int, Any]:
    """By the identity of a weight into which adapters have been fused: its layer."""
    found = (layer for layer in _wrapped(network).values() if getattr(layer, "merged_adapters", None))
    return {id(layer.base_layer.weight): layer for layer in found}


def without_merged(weight: Tensor, layer: Any) -> Tensor:
    """The checkpoint's weight in fp32, up to rounding."""
    found = weight.detach().float()
    for name in layer.merged_adapters:
        found = found - layer.get_delta_weight(name).detach().to(found)
    return found


def names(network: nn.Module) -> list[str]:
    """Adapters in force, each once."""
    return list(dict.fromkeys(name for layer in _wrapped(network).values() for name in _in_force(layer)))


def set_up(network: nn.Module) -> str:
    """``plain``, or names of adapters and a digest of all that is in force: strengths, a sample of the values."""
    layers = {name: layer for name, layer in _wrapped(network).items() if _in_force(layer)}
    told = {
        "strengths": {
            place: [(name, float(getattr(layer, "scaling", {}).get(name, 1.0))) for name in _in_force(layer)]
            for place, layer in layers.items()
        },
        "values": list(_sampled(layers)),
        "freeu": [
            [float(getattr(block, name)) for name in _FREEU]
            for block in getattr(network, "up_blocks", ())
            if getattr(block, "b1", None) is not None
        ],
        "attention": sorted(_foreign(network)),
    }
    if not any(told.values()):
        return "plain"
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    return " ".join([", ".join(names(network)), digest]).strip()


def _wrapped(network: nn.Module) -> dict[str, Any]:
    """Layers around which adapters lie, by name."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "base_layer")}


def _in_force(layer: Any) -> list[str]:
    found = list(getattr(layer, "merged_adapters", None) or [])
    active = getattr(layer, "active_adapters", None)
    if isinstance(active, list) and not getattr(layer, "disable_adapters", False):
        found += active
    return list(dict.fromkeys(found))


def _sampled(layers: dict[str, Any]) -> Iterator[tuple[str, list[float]]]:
    matrices = [
        (f"{place}.{name}", parameter)
        for place, layer in layers.items()
        for name, parameter in layer.named_parameters()
        if not name.startswith("base_layer.") and set(name.split(".")) & set(_in_force(layer))
    ]
    for name, matrix in matrices[:: max(1, len(matrices) // _MATRICES)]:
        flat = matrix.detach().reshape(-1)
        places = {(2 * place + 1) * flat.numel() // (2 * _VALUES) for place in range(_VALUES)}
        yield name, [float(flat[place]) for place in sorted(places)]


def _foreign(network: nn.Module) -> set[str]:
    kinds = {type(found) for module in network.modules() if (found := getattr(module, "processor", None)) is not None}
    return {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if not kind.__module__.startswith("diffusers.") or any(part in kind.__name__ for part in _OTHER_ATTENTION)
    }
