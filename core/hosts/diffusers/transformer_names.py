"""A diffusers transformer's weights under the names of the published checkpoints, which fingerprints use.

There q, k and v of a stream are one matrix, and two of the scale-and-shift matrices have their halves the other way
round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .adapters import own_parameters

#: Pattern of diffusers' module → published module, and the place inside it of those that it is made of.
_Rule = tuple[str, str, int]


def _embedders(names: Mapping[str, tuple[str, str, str]]) -> list[_Rule]:
    """Two layers each, by diffusers' name: published module, its first layer, its second."""
    return [
        (rf"time_text_embed\.{name}\.linear_{number}", f"{module}.{layers[number - 1]}", 0)
        for name, (module, *layers) in names.items()
        for number in (1, 2)
    ]


def _streams(image: str, text: str, modulation: str, mlp: str, layers: tuple[str, str]) -> list[_Rule]:
    """A block with a stream for the image and one for the text, each with an attention and an MLP."""
    block = r"transformer_blocks\.(\d+)\."
    found: list[_Rule] = []
    for stream, norm, feed in ((image, "norm1", "ff"), (text, "norm1_context", "ff_context")):
        found.append((rf"{block}{norm}\.linear", stream + modulation, 0))
        found.append((rf"{block}{feed}\.net\.0\.proj", f"{stream}{mlp}.{layers[0]}", 0))
        found.append((rf"{block}{feed}\.net\.2", f"{stream}{mlp}.{layers[1]}", 0))
    for place, part in enumerate("qkv"):
        found.append((rf"{block}attn(2?)\.to_{part}", rf"{image}attn\2.qkv", place))
        found.append((rf"{block}attn\.add_{part}_proj", f"{text}attn.qkv", place))
    found.append((rf"{block}attn(2?)\.to_out\.0", rf"{image}attn\2.proj", 0))
    found.append((rf"{block}attn\.to_add_out", f"{text}attn.proj", 0))
    return found


_ENDS: list[_Rule] = [("norm_out\\.linear", "final_layer.adaLN_modulation.1", 0), ("proj_out", "final_layer.linear", 0)]
_SD3: list[_Rule] = [
    *_ENDS,
    (r"pos_embed\.proj", "x_embedder.proj", 0),
    (r"context_embedder", "context_embedder", 0),
    *_embedders({"timestep_embedder": ("t_embedder.mlp", "0", "2"), "text_embedder": ("y_embedder.mlp", "0", "2")}),
    *_streams(
        r"joint_blocks.\1.x_block.", r"joint_blocks.\1.context_block.", "adaLN_modulation.1", "mlp", ("fc1", "fc2")
    ),
]
_SINGLE = r"single_transformer_blocks\.(\d+)\."
_FLUX: list[_Rule] = [
    *_ENDS,
    (r"x_embedder", "img_in", 0),
    (r"context_embedder", "txt_in", 0),
    *_embedders(
        {
            "timestep_embedder": ("time_in", "in_layer", "out_layer"),
            "text_embedder": ("vector_in", "in_layer", "out_layer"),
            "guidance_embedder": ("guidance_in", "in_layer", "out_layer"),
        }
    ),
    *_streams(r"double_blocks.\1.img_", r"double_blocks.\1.txt_", "mod.lin", "mlp", ("0", "2")),
    (rf"{_SINGLE}norm\.linear", r"single_blocks.\1.modulation.lin", 0),
    (rf"{_SINGLE}attn\.to_q", r"single_blocks.\1.linear1", 0),
    (rf"{_SINGLE}attn\.to_k", r"single_blocks.\1.linear1", 1),
    (rf"{_SINGLE}attn\.to_v", r"single_blocks.\1.linear1", 2),
    (rf"{_SINGLE}proj_mlp", r"single_blocks.\1.linear1", 3),
    (rf"{_SINGLE}proj_out", r"single_blocks.\1.linear2", 0),
]
_FLUX2: list[_Rule] = [
    *_ENDS,
    (r"x_embedder", "img_in", 0),
    (r"context_embedder", "txt_in", 0),
    (r"time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer", 0),
    (r"time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer", 0),
    (r"time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer", 0),
    (r"time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer", 0),
    (r"(double_stream_modulation_img|double_stream_modulation_txt|single_stream_modulation)\.linear", r"\1.lin", 0),
    *_streams(r"double_blocks.\1.img_", r"double_blocks.\1.txt_", "mod.lin", "mlp", ("0", "2")),
    (r"transformer_blocks\.(\d+)\.ff\.linear_in", r"double_blocks.\1.img_mlp.0", 0),
    (r"transformer_blocks\.(\d+)\.ff\.linear_out", r"double_blocks.\1.img_mlp.2", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.linear_in", r"double_blocks.\1.txt_mlp.0", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.linear_out", r"double_blocks.\1.txt_mlp.2", 0),
    (rf"{_SINGLE}attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1", 0),
    (rf"{_SINGLE}attn\.to_out", r"single_blocks.\1.linear2", 0),
]
_WAN: list[_Rule] = [
    (r"condition_embedder\.time_embedder\.linear_1", "time_embedding.0", 0),
    (r"condition_embedder\.time_embedder\.linear_2", "time_embedding.2", 0),
    (r"condition_embedder\.text_embedder\.linear_1", "text_embedding.0", 0),
    (r"condition_embedder\.text_embedder\.linear_2", "text_embedding.2", 0),
    (r"condition_embedder\.time_proj", "time_projection.1", 0),
    (r"scale_shift_table", "head.modulation", 0),
    (r"proj_out", "head.head", 0),
    (r"blocks\.(\d+)\.scale_shift_table", r"blocks.\1.modulation", 0),
    (r"blocks\.(\d+)\.attn1\.to_([qkv])", r"blocks.\1.self_attn.\2", 0),
    (r"blocks\.(\d+)\.attn1\.to_out\.0", r"blocks.\1.self_attn.o", 0),
    (r"blocks\.(\d+)\.attn2\.to_([qkv])", r"blocks.\1.cross_attn.\2", 0),
    (r"blocks\.(\d+)\.attn2\.to_out\.0", r"blocks.\1.cross_attn.o", 0),
    (r"blocks\.(\d+)\.ffn\.net\.0\.proj", r"blocks.\1.ffn.0", 0),
    (r"blocks\.(\d+)\.ffn\.net\.2", r"blocks.\1.ffn.2", 0),
]
_LAYER = r"(layers|noise_refiner|context_refiner)\.(\d+)\."
_LUMINA2: list[_Rule] = [
    (r"time_caption_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0", 0),
    (r"time_caption_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2", 0),
    (r"time_caption_embed\.caption_embedder\.1", "cap_embedder.1", 0),
    (r"norm_out\.linear_1", "final_layer.adaLN_modulation.1", 0),
    (r"norm_out\.linear_2", "final_layer.linear", 0),
    (rf"{_LAYER}norm1\.linear", r"\1.\2.adaLN_modulation.1", 0),
    (rf"{_LAYER}attn\.to_q", r"\1.\2.attention.qkv", 0),
    (rf"{_LAYER}attn\.to_k", r"\1.\2.attention.qkv", 1),
    (rf"{_LAYER}attn\.to_v", r"\1.\2.attention.qkv", 2),
    (rf"{_LAYER}attn\.to_out\.0", r"\1.\2.attention.out", 0),
    (rf"{_LAYER}feed_forward\.linear_([123])", r"\1.\2.feed_forward.w\3", 0),
]
_ZIMAGE: list[_Rule] = [
    (r"all_x_embedder\.2-1", "x_embedder", 0),
    (r"all_final_layer\.2-1\.(.*)", r"final_layer.\1", 0),
    (rf"{_LAYER}attention\.to_q", r"\1.\2.attention.qkv", 0),
    (rf"{_LAYER}attention\.to_k", r"\1.\2.attention.qkv", 1),
    (rf"{_LAYER}attention\.to_v", r"\1.\2.attention.qkv", 2),
    (rf"{_LAYER}attention\.to_out\.0", r"\1.\2.attention.out", 0),
]
_RULES = {
    "SD3Transformer2DModel": _SD3,
    "FluxTransformer2DModel": _FLUX,
    "Flux2Transformer2DModel": _FLUX2,
    "WanTransformer3DModel": _WAN,
    "Lumina2Transformer2DModel": _LUMINA2,
    "ZImageTransformer2DModel": _ZIMAGE,
    "QwenImageTransformer2DModel": [],
}
#: Of these the last scale-and-shift matrix has its halves the other way round.
_SWAPPING = ("SD3Transformer2DModel", "FluxTransformer2DModel", "Flux2Transformer2DModel")


def published_weights(network: Any) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Matrices and kernels of a transformer, those that are one in the published checkpoint together, in its order."""
    rules = [(re.compile(pattern), name, place) for pattern, name, place in _RULES[type(network).__name__]]
    found: dict[str, dict[int, Tensor]] = {}
    for name, parameter in own_parameters(network):
        if parameter.ndim < 2:
            continue
        module = name.removesuffix(".weight")
        published, place = _published(module, rules)
        found.setdefault(published + name[len(module) :], {})[place] = parameter
    swapping = type(network).__name__ in _SWAPPING
    blocks = len(getattr(network, "transformer_blocks", ()))
    last = f"joint_blocks.{blocks - 1}.context_block.adaLN_modulation.1.weight"
    for name, parts in found.items():
        whole = tuple(parts[place] for place in sorted(parts))
        swapped = swapping and name in ("final_layer.adaLN_modulation.1.weight", last)
        yield name, tuple(reversed(whole[0].chunk(2))) if swapped else whole


def _published(module: str, rules: list[tuple[re.Pattern[str], str, int]]) -> tuple[str, int]:
    for pattern, name, place in rules:
        match = pattern.fullmatch(module)
        if match is not None:
            return match.expand(name), place
    return module, 0
