"""Writing the model folder: diffusers' layout, fp16, each file whole or absent."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...errors import UnreadableFile
from ...files import whole_file, write_text
from ...nets import critic_ldm
from .models import FactorisedEmbedding, Networks, part_weights, sizes_in

RECORD = "training.json"
_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}
_TOKENIZER = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": 77,
}


def write_bundle(networks: Networks, folder: Path, merges: list[str], record: dict[str, Any]) -> None:
    """Write the three networks (fp16), tokenizer and scheduler; into the record also :func:`described`."""
    for part in critic_ldm.PARTS:
        module = networks.part(part)
        _write_weights(part_weights(module), critic_ldm.weight_file(folder, part))
        _write_json(folder / part / "config.json", _part_config(networks, part))
    write_text(folder / "tokenizer" / "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
    _write_json(folder / "tokenizer" / "tokenizer_config.json", _TOKENIZER)
    _write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    _write_json(folder / "model_index.json", _INDEX)
    _write_json(folder / RECORD, record | described(networks))


def described(networks: Networks) -> dict[str, Any]:
    """``sizes``, as :class:`.settings.Architecture` names them, and stored ``parameters`` by part; plain JSON."""
    sizes = asdict(sizes_in(*(_part_config(networks, part) for part in critic_ldm.PARTS)))
    parts = {part: part_weights(networks.part(part)).values() for part in critic_ldm.PARTS}
    return {
        "sizes": {**sizes, "unet_channels": list(sizes["unet_channels"])},
        "parameters": {part: sum(tensor.numel() for tensor in weights) for part, weights in parts.items()},
    }


def read_record(folder: Path) -> dict[str, Any]:
    """How far a model folder's training has come.

    Raises:
        UnreadableFile: no such file, or no JSON.
    """
    path = folder / RECORD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableFile(
            f"a training record at {path}", str(error), "Name a folder written by train ldm."
        ) from error


def _part_config(networks: Networks, part: str) -> dict[str, Any]:
    if part == "text_encoder":
        embedding = next(m for m in networks.text.modules() if isinstance(m, FactorisedEmbedding))
        told = networks.text.config.to_diff_dict()
        return {**told, "architectures": ["CLIPTextModel"], "embedding_rank": embedding.rows.shape[1]}
    # diffusers' own form, without the path and version of this machine and what AutoencoderTiny adds but never reads
    left_out = {"_diffusers_version", "_name_or_path"} | ({"block_out_channels"} if part == "vae" else set())
    told = json.loads(networks.part(part).to_json_string())  # pyright: ignore[reportCallIssue]
    return {name: value for name, value in told.items() if name not in left_out}


def _write_weights(weights: dict[str, Tensor], path: Path) -> None:
    half = {name: tensor.detach().cpu().to(torch.float16).contiguous().clone() for name, tensor in weights.items()}
    with whole_file(path) as temporary:
        save_file(half, temporary, metadata={"format": "pt"})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
