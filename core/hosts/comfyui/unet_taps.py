"""The taps of a loaded U-Net, read off its modules, so that shortened and distilled variants get their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample

from ...backbone.contracts import Tap

#: SDXL's network takes six numbers (sizes and crop), 256 values each, beside the pooled text.
_SIZE_VALUES = 6 * 256
#: Where a transformer block sits: ComfyUI's own block name (``("input", 4)``) and its index inside that block.
Place = tuple[str, int, int]


@dataclass(slots=True)
class UNetTaps:
    """Every tap in the order in which a forward reaches it, and where ComfyUI's patches meet them.

    Attributes:
        order: All taps.
        features: Feature tap by the number of output blocks that ran before its value is complete: 0 is the middle's.
        attention: Attention tap by place.
        text_width: Width of the text tokens that the cross-attention takes.
        pooled_width: Width of the pooled text, where it takes one.
    """

    order: list[Tap] = field(default_factory=list)
    features: dict[int, Tap] = field(default_factory=dict)
    attention: dict[Place, Tap] = field(default_factory=dict)
    text_width: int | None = None
    pooled_width: int | None = None


def unet_taps(unet: Any) -> UNetTaps:
    """Walk a ``UNetModel`` in forward order."""
    found = UNetTaps(text_width=context_width(unet), pooled_width=_pooled_width(unet))
    stride, channels, level, place = 1, 0, 0, 0
    for number, block in enumerate(unet.input_blocks):
        place += _attention(found, block, ("input", number), f"down.{level}.{place}", stride)
        channels, change = _shape_after(block, channels)
        if change > 1:
            stride, level, place = round(stride * change), level + 1, 0
    if unet.middle_block is not None:
        _attention(found, unet.middle_block, ("middle", 0), "mid.0", stride)
        channels, _ = _shape_after(unet.middle_block, channels)
        _feature(found, 0, Tap("mid", "feature", channels, stride))
    level, place = 0, 0
    for number, block in enumerate(unet.output_blocks):
        place += _attention(found, block, ("output", number), f"up.{level}.{place}", stride)
        channels, change = _shape_after(block, channels)
        if change < 1:
            stride, level, place = round(stride * change), level + 1, 0
        _feature(found, number + 1, Tap(f"up.{number}", "feature", channels, stride))
    return found


def _feature(found: UNetTaps, number: int, tap: Tap) -> None:
    found.order.append(tap)
    found.features[number] = tap


def _attention(found: UNetTaps, block: Any, name: tuple[str, int], label: str, stride: int) -> int:
    """Add the cross-attention taps of one block; 1 where it has a transformer, so that labels count on."""
    transformers = [layer for layer in block if isinstance(layer, SpatialTransformer)]
    for transformer in transformers:
        depth = len(transformer.transformer_blocks)
        for index, inner in enumerate(transformer.transformer_blocks):
            if inner.attn2 is None:
                continue
            tap = Tap(f"{label}.{index}" if depth > 1 else label, "attention", inner.attn2.heads, stride)
            found.order.append(tap)
            found.attention[(*name, index)] = tap
    return len(transformers)


def _shape_after(block: Any, channels: int) -> tuple[int, float]:
    """Channels after a block, and by how much it multiplies the stride."""
    change = 1.0
    for layer in block:
        channels = getattr(layer, "out_channels", channels)
        if isinstance(layer, Downsample) or _resamples(layer, Downsample):
            change *= 2.0
        if isinstance(layer, Upsample) or _resamples(layer, Upsample):
            change /= 2.0
    return channels, change


def _resamples(layer: Any, kind: type) -> bool:
    return isinstance(layer, ResBlock) and bool(layer.updown) and isinstance(layer.h_upd, kind)


def context_width(unet: Any) -> int | None:
    """Width of the text tokens that the U-Net's cross-attention takes."""
    for module in _transformers(unet):
        for inner in module.transformer_blocks:
            if inner.attn2 is not None:
                return int(inner.attn2.to_k.in_features)
    return None


def _pooled_width(unet: Any) -> int | None:
    label = getattr(unet, "label_emb", None)
    if label is None or getattr(unet, "num_classes", None) != "sequential":
        return None
    return int(label[0][0].in_features) - _SIZE_VALUES


def _transformers(unet: Any) -> Iterator[Any]:
    for module in unet.modules():
        if isinstance(module, SpatialTransformer):
            yield module
