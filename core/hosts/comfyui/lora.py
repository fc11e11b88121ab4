"""LoRA on the text cross-attention through ComfyUI's own patches, on a clone; others' LoRA stay in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.weight_adapter import LoRAAdapter

from ...backbone.adaptation import PARTS, CrossLora, Where
from .unet_taps import Place, UNetTaps

_MATRICES = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_BLOCKS = {"input": "input_blocks.{}", "middle": "middle_block", "output": "output_blocks.{}"}


def weight_names(unet: Any, taps: UNetTaps) -> dict[Where, str]:
    """The name of every matrix of the text cross-attention in the model's state dict."""
    found: dict[Where, str] = {}
    for place, tap in taps.attention.items():
        base = f"diffusion_model.{_transformer(unet, place)}.transformer_blocks.{place[2]}.attn2"
        for part in PARTS:
            found[(tap.name, part)] = f"{base}.{_MATRICES[part]}.weight"
    return found


def _transformer(unet: Any, place: Place) -> str:
    kind, number, _ = place
    name = _BLOCKS[kind].format(number)
    layers = unet.get_submodule(name)
    inner = next(i for i, layer in enumerate(layers) if isinstance(layer, SpatialTransformer))
    return f"{name}.{inner}"


def matrix_shapes(model: Any, names: Mapping[Where, str]) -> dict[Where, tuple[int, int]]:
    """(out, in) of those matrices."""
    found = {}
    for where, name in names.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        found[where] = (int(layer.out_features), int(layer.in_features))
    return found


def add(patcher: Any, lora: CrossLora, names: Mapping[Where, str]) -> list[str]:
    """Lay LoRA over a clone; its shapes have been checked, since ComfyUI only logs those that do not fit."""
    patches = {
        names[where]: LoRAAdapter(set(), (up, down, lora.alpha, None, None, None))
        for where, (down, up) in lora.layers.items()
    }
    return patcher.add_patches(patches)


def backup_bytes(patcher: Any, names: Iterable[str]) -> int:
    """Bytes of the original weights that ComfyUI keeps while patched ones lie in their place."""
    kept = [patcher.backup[name].weight for name in names if name in patcher.backup]
    return sum(weight.numel() * weight.element_size() for weight in kept)
