"""A diffusers transformer's weights under the names of the published checkpoints, which fingerprints use.

There q, k and v of a stream are one matrix, and two of the scale-and-shift matrices have their halves the other way
round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

#: Pattern of diffusers' module → published module, and the place inside it of those that it is made of.
_SD3 = (
    (r"pos_embed\.proj", "x_embedder.proj", 0),
    (r"time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0", 0),
    (r"time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2", 0),
    (r"time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0", 0),
    (r"time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2", 0),
    (r"context_embedder", "context_embedder", 0),
    (r"norm_out\.linear", "final_layer.adaLN_modulation.1", 0),
    (r"proj_out", "final_layer.linear", 0),
    (r"transformer_blocks\.(\d+)\.norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1", 0),
    (r"transformer_blocks\.(\d+)\.norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1", 0),
    (r"transformer_blocks\.(\d+)\.attn(2?)\.to_q", r"joint_blocks.\1.x_block.attn\2.qkv", 0),
    (r"transformer_blocks\.(\d+)\.attn(2?)\.to_k", r"joint_blocks.\1.x_block.attn\2.qkv", 1),
    (r"transformer_blocks\.(\d+)\.attn(2?)\.to_v", r"joint_blocks.\1.x_block.attn\2.qkv", 2),
    (r"transformer_blocks\.(\d+)\.attn(2?)\.to_out\.0", r"joint_blocks.\1.x_block.attn\2.proj", 0),
    (r"transformer_blocks\.(\d+)\.attn\.add_q_proj", r"joint_blocks.\1.context_block.attn.qkv", 0),
    (r"transformer_blocks\.(\d+)\.attn\.add_k_proj", r"joint_blocks.\1.context_block.attn.qkv", 1),
    (r"transformer_blocks\.(\d+)\.attn\.add_v_proj", r"joint_blocks.\1.context_block.attn.qkv", 2),
    (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj", 0),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"joint_blocks.\1.x_block.mlp.fc1", 0),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"joint_blocks.\1.x_block.mlp.fc2", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"joint_blocks.\1.context_block.mlp.fc1", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"joint_blocks.\1.context_block.mlp.fc2", 0),
)
_FLUX = (
    (r"x_embedder", "img_in", 0),
    (r"context_embedder", "txt_in", 0),
    (r"time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer", 0),
    (r"time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer", 0),
    (r"time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer", 0),
    (r"time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer", 0),
    (r"time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer", 0),
    (r"time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer", 0),
    (r"norm_out\.linear", "final_layer.adaLN_modulation.1", 0),
    (r"proj_out", "final_layer.linear", 0),
    (r"transformer_blocks\.(\d+)\.norm1\.linear", r"double_blocks.\1.img_mod.lin", 0),
    (r"transformer_blocks\.(\d+)\.norm1_context\.linear", r"double_blocks.\1.txt_mod.lin", 0),
    (r"transformer_blocks\.(\d+)\.attn\.to_q", r"double_blocks.\1.img_attn.qkv", 0),
    (r"transformer_blocks\.(\d+)\.attn\.to_k", r"double_blocks.\1.img_attn.qkv", 1),
    (r"transformer_blocks\.(\d+)\.attn\.to_v", r"double_blocks.\1.img_attn.qkv", 2),
    (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj", 0),
    (r"transformer_blocks\.(\d+)\.attn\.add_q_proj", r"double_blocks.\1.txt_attn.qkv", 0),
    (r"transformer_blocks\.(\d+)\.attn\.add_k_proj", r"double_blocks.\1.txt_attn.qkv", 1),
    (r"transformer_blocks\.(\d+)\.attn\.add_v_proj", r"double_blocks.\1.txt_attn.qkv", 2),
    (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj", 0),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0", 0),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0", 0),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2", 0),
    (r"single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin", 0),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_q", r"single_blocks.\1.linear1", 0),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_k", r"single_blocks.\1.linear1", 1),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_v", r"single_blocks.\1.linear1", 2),
    (r"single_transformer_blocks\.(\d+)\.proj_mlp", r"single_blocks.\1.linear1", 3),
    (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2", 0),
)
_RULES = {"SD3Transformer2DModel": _SD3, "FluxTransformer2DModel": _FLUX}


def published_weights(network: Any) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Matrices and kernels of a transformer, those that are one in the published checkpoint together, in its order."""
    rules = [(re.compile(pattern), name, place) for pattern, name, place in _RULES[type(network).__name__]]
    found: dict[str, dict[int, Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2 or "lora_" in name:
            continue
        published, place = _published(name.removesuffix(".weight").replace(".base_layer", ""), rules)
        found.setdefault(f"{published}.weight", {})[place] = parameter
    last = f"joint_blocks.{len(network.transformer_blocks) - 1}.context_block.adaLN_modulation.1.weight"
    for name, parts in found.items():
        whole = tuple(parts[place] for place in sorted(parts))
        swapped = name == "final_layer.adaLN_modulation.1.weight" or name == last
        yield name, tuple(reversed(whole[0].chunk(2))) if swapped else whole


def _published(module: str, rules: list[tuple[re.Pattern[str], str, int]]) -> tuple[str, int]:
    for pattern, name, place in rules:
        match = pattern.fullmatch(module)
        if match is not None:
            return match.expand(name), place
    return module, 0
