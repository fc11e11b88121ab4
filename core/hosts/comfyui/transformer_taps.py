"""The taps of a loaded diffusion transformer, read off its modules: every block's image tokens, and its text attention.

One walk per network of ComfyUI; what it gives is the same for all. A block keeps its image tokens in a stream of their
own or behind the text in one sequence; the text is read in joint attention (image rows × text columns of the one map)
or in a true cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from comfy.ldm.flux.model import Flux
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel
from torch import nn

from ...backbone.contracts import Tap


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block.

    Attributes:
        feature: The tap of its image tokens.
        text: The tap of its text attention.
        module: The block.
        attention: The module before whose first attention call the text attention is announced.
        image: Place of the image tokens in what the block gives; ``None`` where it gives one tensor.
        joined: Whether that tensor holds the text too, before the image.
        cross: Whether the attention is a true cross-attention: all rows, all columns.
    """

    feature: Tap
    text: Tap
    module: nn.Module
    attention: nn.Module
    image: int | None = None
    joined: bool = False
    cross: bool = False


@dataclass(frozen=True, slots=True)
class TransformerTaps:
    """All taps of a transformer.

    Attributes:
        order: In the order in which a forward reaches them.
        blocks: The blocks.
        patch: Latent pixels per token, along each side.
        text_width: Width of the text tokens that it takes.
        pooled_width: Width of the pooled text, where it takes one.
        text_multiple: The text is filled up to a multiple of so many tokens inside the network.
        wrapped: Whether ComfyUI's wrapper around the diffusion model goes around this one.
    """

    order: list[Tap]
    blocks: tuple[Block, ...]
    patch: int
    text_width: int | None
    pooled_width: int | None
    text_multiple: int = 1
    wrapped: bool = True


def transformer_taps(network: nn.Module) -> TransformerTaps | None:
    """Walk a transformer in forward order; ``None`` for a network of no known kind."""
    for kind, walk in _WALKS.items():
        if isinstance(network, kind):
            return walk(network)
    return None


def _blocks(
    modules: Any, name: str, channels: int, heads: int, stride: int, attention: str = "", **more: Any
) -> Iterator[Block]:
    for number, module in enumerate(modules):
        feature = Tap(f"{name}.{number}", "feature", channels, stride)
        text = Tap(f"{name}.{number}.text", "attention", heads, stride)
        yield Block(feature, text, module, getattr(module, attention) if attention else module, **more)


def _found(
    blocks: Iterator[Block], patch: int, text_width: int | None, pooled_width: int | None = None, **more: Any
) -> TransformerTaps:
    every = tuple(blocks)
    order = [tap for block in every for tap in (block.text, block.feature)]
    return TransformerTaps(order, every, patch, text_width, pooled_width, **more)


def _sd3(net: Any) -> TransformerTaps:
    patch, text, pooled = net.patch_size, getattr(net.context_embedder, "in_features", None), net.y_embedder
    blocks = _blocks(net.joint_blocks, "block", net.hidden_size, net.num_heads, patch, image=1)
    width = None if pooled is None else int(pooled.mlp[0].in_features)
    return _found(blocks, patch, text, width, wrapped=False)


def _flux(net: Any) -> TransformerTaps:
    patch, sizes = net.patch_size, (net.hidden_size, net.num_heads, net.patch_size)

    def blocks() -> Iterator[Block]:
        yield from _blocks(net.double_blocks, "double", *sizes, image=0)
        yield from _blocks(net.single_blocks, "single", *sizes, joined=True)

    pooled = None if net.vector_in is None else int(net.vector_in.in_layer.in_features)
    return _found(blocks(), patch, int(net.txt_in.in_features), pooled)


def _lumina(net: Any) -> TransformerTaps:
    blocks = _blocks(net.layers, "block", net.dim, net.n_heads, net.patch_size, joined=True)
    return _found(
        blocks, net.patch_size, int(net.cap_embedder[1].in_features), text_multiple=net.pad_tokens_multiple or 1
    )


def _qwen(net: Any) -> TransformerTaps:
    heads = net.transformer_blocks[0].num_attention_heads
    blocks = _blocks(net.transformer_blocks, "block", net.inner_dim, heads, net.patch_size, image=1)
    return _found(blocks, net.patch_size, int(net.txt_in.in_features))


def _wan(net: Any) -> TransformerTaps:
    patch = net.patch_size[-1]
    blocks = _blocks(net.blocks, "block", net.dim, net.num_heads, patch, attention="cross_attn", cross=True)
    return _found(blocks, patch, int(net.text_embedding[0].in_features))


_WALKS: dict[type, Callable[[Any], TransformerTaps]] = {
    MMDiT: _sd3,
    Flux: _flux,
    NextDiT: _lumina,
    QwenImageTransformer2DModel: _qwen,
    WanModel: _wan,
}
