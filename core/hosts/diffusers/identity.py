"""Fingerprints of a pipeline's parts: the denoiser's, the same in every host, and what else decides a value."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbone.fingerprint import Fingerprint, sketch
from ...backbone.text_sketch import AS_LOADED, FIRST_LAYERS, LETTERS, PATCHES_KEY, text_key
from ...backbone.vae_sketch import VAE_KEY, vae_ends
from .adapters import merged, names, own_parameters, set_up, without_merged

#: The keys are this host's own, because these weights carry other names in other hosts, and other sketches with them.
_PARTS = {f"diffusers_{name}": name for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")}


def fingerprint(weights: Iterable[tuple[str, tuple[Tensor, ...]]], network: nn.Module, name: str) -> Fingerprint:
    """Sketch a network: what its checkpoint holds, also where adapters are fused into it.

    Args:
        weights: Its parameters under the fingerprint's names; several are one matrix, one after the other.
        network: The network itself, for the adapters on it.
        name: The family's name.
    """
    kept = {key: parts for key, parts in weights if len(_shape(parts[0])) >= 2 and _readable(parts[0])}
    fused = merged(network)

    def read(key: str, where: Sequence[int]) -> list[float]:
        parts = tuple(_plain(part, fused) for part in kept[key])
        return [_value(parts, place) for place in where]

    sizes = [(key, sum(math.prod(_shape(part)) for part in parts)) for key, parts in kept.items()]
    values = sketch(sizes, read) if kept else ()
    coarse = any(_in_blocks(parts[0]) or parts[0].element_size() < 2 for parts in kept.values())
    return Fingerprint(name, values, bool(names(network)), coarse)


def _in_blocks(part: Tensor) -> bool:
    """Whether a weight is one of diffusers' GGUF: bytes, and the kind of their blocks."""
    return hasattr(part, "quant_type")


def _shape(part: Any) -> Sequence[int]:
    return part.quant_shape if _in_blocks(part) else part.shape


def _readable(part: Tensor) -> bool:
    return _in_blocks(part) or part.dtype.is_floating_point


def _plain(part: Any, fused: Mapping[int, Any]) -> Tensor:
    if _in_blocks(part):
        return importlib.import_module("diffusers.quantizers.gguf.utils").dequantize_gguf_tensor(part)
    return without_merged(part, fused[id(part)]) if id(part) in fused else part


def _value(parts: Sequence[Tensor], place: int) -> float:
    for part in parts:
        if place < part.numel():
            return float(part.detach().reshape(-1)[place].float())
        place -= part.numel()
    raise IndexError(place)


def identity(pipeline: Any, network: nn.Module, text_layout: str = "") -> dict[str, str]:
    """Short texts to compare: ``model`` names the LoRA adapters on the network; sketches of text encoders and VAE;
    ``text_layer`` and ``text_patches`` in the words of all hosts.

    Args:
        pipeline: The pipeline.
        network: Its denoiser.
        text_layout: The family's: names of the CLIP encoders, whose first layers are sketched as all hosts do.
    """
    found = over_weights(pipeline, network)
    if any(not _readable(weight) for weight in network.parameters() if weight.ndim >= 2):
        found["opaque"] = "weights in a quantised form that is not read"
    for key, name in _PARTS.items():
        part = getattr(pipeline, name, None)
        if part is not None:
            found[key] = _sketched(part, key)
    letters = [name.removeprefix("clip_") for name in text_layout.split("+")]
    for letter, name in zip(letters, ("text_encoder", "text_encoder_2"), strict=False):
        encoder = getattr(pipeline, name, None)
        inner = getattr(encoder, "text_model", encoder)  # transformers 5 has dropped one level
        layers = getattr(getattr(inner, "encoder", None), "layers", None)
        if letter in LETTERS and layers is not None:
            found[text_key(letter)] = _sketched(layers[:FIRST_LAYERS], text_key(letter))
    ends = vae_ends(getattr(pipeline, "vae", None))
    if ends is not None:
        found[VAE_KEY] = _sketched(ends, VAE_KEY)
    return found


def over_weights(pipeline: Any, network: nn.Module) -> dict[str, str]:
    """What may change at any time: adapters and the like on the network, and on encoders, which stop as usual."""
    encoders = [getattr(pipeline, name, None) for name in _PARTS.values() if name.startswith("text")]
    there = [set_up(encoder) for encoder in encoders if encoder is not None]
    patches = dict.fromkeys(told for told in there if told != AS_LOADED[PATCHES_KEY])
    told = AS_LOADED | ({PATCHES_KEY: ", ".join(patches)} if patches else {})
    return {"model": set_up(network)} | (told if there else {})


def _sketched(part: nn.Module, name: str) -> str:
    return fingerprint(((key, (weight,)) for key, weight in own_parameters(part)), part, name).to_text()
