"""Fingerprints of a pipeline's parts: the denoiser's, the same in every host, and what else decides a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbone.fingerprint import Fingerprint, sketch
from ...backbone.text_sketch import AS_LOADED, FIRST_LAYERS, LETTERS, PATCHES_KEY, text_key
from ...backbone.vae_sketch import VAE_KEY, vae_ends

#: The keys are this host's own, because these weights carry other names in other hosts, and other sketches with them.
_PARTS = {f"diffusers_{name}": name for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")}


def fingerprint(weights: Iterable[tuple[str, tuple[Tensor, ...]]], network: nn.Module, name: str) -> Fingerprint:
    """Sketch a network.

    Args:
        weights: Its parameters under the fingerprint's names; several are one matrix, one after the other.
        network: The network itself, for the adapters on it.
        name: The family's name.
    """
    kept = {key: parts for key, parts in weights if parts[0].ndim >= 2 and parts[0].dtype.is_floating_point}

    def read(key: str, where: Sequence[int]) -> list[float]:
        return [_value(kept[key], place) for place in where]

    values = sketch([(key, sum(part.numel() for part in parts)) for key, parts in kept.items()], read) if kept else ()
    coarse = any(parts[0].element_size() < 2 for parts in kept.values())
    return Fingerprint(name, values, bool(_adapters(network)), coarse)


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
    found = {"model": ", ".join(_adapters(network)) or "plain"}
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
    return found | _text_set_up(pipeline)


def _text_set_up(pipeline: Any) -> dict[str, str]:
    """A pipeline's encoders stop where their family does; LoRA may lie beside their matrices."""
    encoders = [getattr(pipeline, name, None) for name in _PARTS.values() if name.startswith("text")]
    there = [encoder for encoder in encoders if encoder is not None]
    adapters = dict.fromkeys(name for encoder in there for name in _adapters(encoder))
    told = AS_LOADED | ({PATCHES_KEY: ", ".join(adapters)} if adapters else {})
    return told if there else {}


def _sketched(part: nn.Module, name: str) -> str:
    return fingerprint(((key, (weight,)) for key, weight in part.named_parameters()), part, name).to_text()


def _adapters(network: nn.Module) -> list[str]:
    """Names of LoRA adapters that lie beside its matrices and are in force."""
    found: dict[str, None] = {}
    for module in network.modules():
        names = getattr(module, "active_adapters", None)
        if hasattr(module, "base_layer") and not getattr(module, "disable_adapters", False):
            found.update(dict.fromkeys(names if isinstance(names, list) else []))
    return list(found)
