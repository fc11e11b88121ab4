"""Places in a diffusers U-Net: its taps in forward order, and its weights under LDM's names, which fingerprints use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...backbone.contracts import Tap
from .adapters import own_parameters

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)"
)


@dataclass(slots=True)
class Places:
    """The taps of a U-Net, and the modules that they sit on.

    Attributes:
        order: All taps in forward order, named as in every host.
        features: Module whose output is a feature tap, by tap name.
        attention: (transformer, its text cross-attention), by tap name.
    """

    order: list[Tap] = field(default_factory=list)
    features: dict[str, nn.Module] = field(default_factory=dict)
    attention: dict[str, tuple[nn.Module, Any]] = field(default_factory=dict)


def places(unet: Any) -> Places:
    """Walk a ``UNet2DConditionModel`` in forward order."""
    found, stride, number = Places(), 1, 0
    for level, block in enumerate(unet.down_blocks):
        _attention(found, block, f"down.{level}", stride)
        stride *= 2 if getattr(block, "downsamplers", None) else 1
    if unet.mid_block is not None:
        _attention(found, unet.mid_block, "mid", stride)
        _feature(found, "mid", unet.mid_block, unet.mid_block.resnets[-1].out_channels, stride)
    for level, block in enumerate(unet.up_blocks):
        for place, resnet in enumerate(block.resnets):
            _attention(found, block, f"up.{level}", stride, place)
            module = block.attentions[place] if _attentions(block) else resnet
            if place == len(block.resnets) - 1 and getattr(block, "upsamplers", None):
                module, stride = block.upsamplers[0], stride // 2
            _feature(found, f"up.{number}", module, resnet.out_channels, stride)
            number += 1
    return found


def _attentions(block: Any) -> list[Any]:
    return list(getattr(block, "attentions", None) or [])


def _feature(found: Places, name: str, module: nn.Module, channels: int, stride: int) -> None:
    found.order.append(Tap(name, "feature", channels, stride))
    found.features[name] = module


def _attention(found: Places, block: Any, label: str, stride: int, only: int | None = None) -> None:
    for place, transformer in enumerate(_attentions(block)):
        if only is not None and place != only:
            continue
        depth = len(transformer.transformer_blocks)
        for index, inner in enumerate(transformer.transformer_blocks):
            name = f"{label}.{place}.{index}" if depth > 1 else f"{label}.{place}"
            found.order.append(Tap(name, "attention", inner.attn2.heads, stride))
            found.attention[name] = (transformer, inner.attn2)


def ldm_weights(unet: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter under LDM's name.

    Args:
        unet: A ``UNet2DConditionModel``; parts that LDM does not know keep their names.
    """
    lengths = {"down_blocks": [len(block.resnets) for block in unet.down_blocks]}
    lengths["up_blocks"] = [len(block.resnets) for block in unet.up_blocks]
    with_attention = [bool(_attentions(block)) for block in unet.up_blocks]
    for name, parameter in own_parameters(unet):
        yield _ldm_name(name, lengths, with_attention), parameter


def _ldm_name(name: str, lengths: dict[str, list[int]], with_attention: list[bool]) -> str:
    for end, ldm in _ENDS.items():
        if name.startswith(f"{end}."):
            return ldm + name[len(end) :]
    match = _BLOCK.match(name)
    if match is None:
        return name
    kind, number, layer, place = match[1], int(match[2] or 0), match[3], int(match[4])
    rest = name[match.end() :].lstrip(".")
    inner = rest
    if layer == "resnets":
        first, _, last = rest.partition(".")
        inner = f"{_RESNET[first]}.{last}"
    if layer == "downsamplers":
        inner = f"op.{rest.removeprefix('conv.')}"
    return f"{_block(kind, number, layer, place, lengths, with_attention)}.{inner}"


def _block(
    kind: str, number: int, layer: str, place: int, lengths: dict[str, list[int]], with_attention: list[bool]
) -> str:
    if kind == "mid_block":
        return f"middle_block.{1 if layer == 'attentions' else 2 * place}"
    if kind == "down_blocks":
        first = 1 + sum(length + 1 for length in lengths["down_blocks"][:number])
        if layer == "downsamplers":
            return f"input_blocks.{first + lengths['down_blocks'][number]}.0"
        return f"input_blocks.{first + place}.{int(layer == 'attentions')}"
    first = sum(lengths["up_blocks"][:number])
    if layer == "upsamplers":
        return f"output_blocks.{first + lengths['up_blocks'][number] - 1}.{1 + with_attention[number]}"
    return f"output_blocks.{first + place}.{int(layer == 'attentions')}"
