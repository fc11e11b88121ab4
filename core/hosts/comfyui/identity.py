"""What else than the checkpoint decides a value: the patches on MODEL, and which CLIP and VAE stand beside it.

All of it is short text that can be compared, and the same in two runs: values are read from fixed places, and nothing
depends on where an object lies in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ...backbone.eager import original
from ...backbone.text_sketch import LAYER_KEY, PATCHES_KEY
from ...backbone.vae_sketch import VAE_KEY, vae_ends
from . import facts
from .inner_values import name_of, object_told
from .text_identity import text_sketches

#: The key under which ComfyUI's torch.compile node wraps a model.
_COMPILING = "torch.compile"
#: Patched weights looked at, and values read from each of their tensors.
_KEYS, _VALUES = 16, 8


def identity(model: Any, clip: Any, vae: Any, tiny_vae: Any = None) -> dict[str, str]:
    """Text for each of MODEL, CLIP, VAE and a tiny VAE (those that are given).

    ``model``: a digest of weight patches (every key and strength, a sample of the values), of objects put in place of
    the model's own, and of functions that nodes hung on, with the plain values that they hold (FreeU's factors, say);
    ``plain`` without any. ``clip``: a sketch of the weights, the digest of its patches, the layer it stops at and its
    tokenizer's options. ``vae``: a sketch of the weights. ``opaque``, only where there is something: the names of what
    such objects and functions hold that cannot be read; two set-ups of one identity may then differ.

    Other hosts tell these in the same words: ``text_l`` and the like, sketches of CLIP's encoders; ``text_layer`` and
    ``text_patches``; ``vae_ends``, a sketch of the VAE.
    """
    opaque: list[str] = []
    found = {"model": _set_up(model, opaque)}
    if clip is not None:
        layer = "last" if clip.layer_idx is None else str(clip.layer_idx)
        options = _digest(clip.tokenizer_options) if clip.tokenizer_options else "plain"
        found["clip"] = _weights(clip.patcher, "clip")
        found |= text_sketches(clip)
        found |= {LAYER_KEY: layer, PATCHES_KEY: _set_up(clip.patcher, opaque)}
        found["clip_set_up"] = f"layer {layer}, patches {found[PATCHES_KEY]}, tokenizer {options}"
    for name, loaded in (("vae", vae), ("tiny_vae", tiny_vae)):
        if loaded is not None:
            found[name] = _weights(loaded.patcher, "vae")
    if vae is not None and (ends := vae_ends(vae.patcher.model)) is not None:
        found[VAE_KEY] = facts.sketch_of(vae.patcher, ends, VAE_KEY).to_text()
    if opaque:
        found["opaque"] = ", ".join(sorted(set(opaque)))
    return found


def _weights(patcher: Any, name: str) -> str:
    return facts.sketch_of(patcher, patcher.model, name).to_text()


def _set_up(patcher: Any, opaque: list[str]) -> str:
    """The digest of everything that nodes put on a ModelPatcher."""
    patches = patcher.patches
    keys = sorted(patches, key=str)
    told = {
        "strengths": [(str(key), [(patch[0], patch[2]) for patch in patches[key]]) for key in keys],
        "values": [_plain(patches[key]) for key in keys[:: max(1, len(keys) // _KEYS)]],
        "hooks": [_plain(list(of_key.values())) for of_key in patcher.hook_patches.values()],
        "wrapped": {str(key): _plain(list(found)) for key, found in patcher.weight_wrapper_patches.items()},
        "injections": sorted(map(str, patcher.injections)),
        "objects": {
            str(key): object_told(value, opaque)
            for key, value in patcher.object_patches.items()
            if original(value) is value
        },
        "functions": list(_functions(patcher.model_options, opaque)),
        "wrappers": list(_functions(_but_compiling(patcher.wrappers), opaque)),
    }
    return _digest(told) if any(told.values()) else "plain"


def _but_compiling(wrappers: Mapping[str, Any]) -> dict[str, Any]:
    """Without the one that compiles the network for a sampling: a judge runs it uncompiled."""
    return {
        kind: {key: value for key, value in of_kind.items() if key != _COMPILING} for kind, of_kind in wrappers.items()
    }


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """The same structure out of numbers and texts; tensors by shape and a few values, functions by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return [list(value.shape), facts.values_at(value, _places(value.numel()))]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "weights"):  # ComfyUI's adapters: LoRA, LoHa, OFT …
        return [type(value).__name__, _plain(list(value.weights))]
    return name_of(value)


def _places(size: int) -> list[int]:
    return [(2 * i + 1) * size // (2 * _VALUES) for i in range(_VALUES)] if size else []


def _functions(value: Any, opaque: list[str]) -> Iterator[str]:
    """Where in a structure which functions and objects are; a probe's and a counter's of this room change no value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (f"{key}.{found}" for found in _functions(inner, opaque))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _functions(inner, opaque)
    elif callable(value) and not name_of(value).startswith(f"{__package__}."):
        yield json.dumps(object_told(value, opaque), sort_keys=True)
