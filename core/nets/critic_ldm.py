"""The files of the embedded latent diffusion model, read without any host.

A folder in diffusers' layout: ``vae/`` (AutoencoderTiny, TAESD's architecture), ``unet/`` (UNet2DConditionModel of the
SD 1 kind), ``text_encoder/`` (CLIPTextModel), ``tokenizer/``, ``scheduler/``. Two things are stored smaller than their
users expect them and are made whole here: the token embedding (two factors) and the tokenizer's vocabulary (it follows
from the merges).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BadInput, UnreadableFile

#: Where the shipped model lies.
SHIPPED = Path(__file__).parents[1] / "assets" / "critic_ldm"
PARTS = ("vae", "unet", "text_encoder")
WEIGHTS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
EMBEDDING = "text_model.embeddings.token_embedding"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def weight_file(folder: Path, part: str) -> Path:
    """Where a part's weights lie in a model folder."""
    return folder / part / f"{WEIGHTS[part]}.safetensors"


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """A part's configuration, as diffusers or transformers write it.

    Raises:
        UnreadableFile: missing or no JSON.
    """
    path = folder / part / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_stored(folder: Path, part: str) -> dict[str, Tensor]:
    """A part's weights in fp32 exactly as stored, the token embedding in two factors.

    Raises:
        BadInput: an unknown part.
        UnreadableFile: missing or damaged.
    """
    if part not in PARTS:
        raise BadInput(f"one of {', '.join(PARTS)}", repr(part), "Name a part of the model.")
    path = weight_file(folder, part)
    try:
        return {name: tensor.to(torch.float32) for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def read_weights(folder: Path, part: str) -> dict[str, Tensor]:
    """A part's weights in fp32 under diffusers' names, the token embedding [tokens, width] multiplied out.

    Raises:
        BadInput: an unknown part.
        UnreadableFile: missing or damaged.
    """
    return multiply_out(read_stored(folder, part))


def multiply_out(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Text encoder weights with ``….rows`` [tokens, rank] and ``….basis`` [rank, width] → with ``….weight``."""
    whole = dict(weights)
    rows, basis = whole.pop(f"{EMBEDDING}.rows", None), whole.pop(f"{EMBEDDING}.basis", None)
    if rows is not None and basis is not None:
        whole[f"{EMBEDDING}.weight"] = rows @ basis
    return whole


def read_merges(folder: Path) -> list[str]:
    """The byte-pair merges in order, such as ``"t h"``.

    Raises:
        UnreadableFile: missing or not text.
    """
    path = folder / "tokenizer" / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return [line for line in lines if line and not line.startswith("#version")]


def vocabulary(merges: list[str]) -> dict[str, int]:
    """CLIP's vocabulary: 256 byte characters, the same ending a word, one entry per merge, two special tokens."""
    characters = _byte_characters()
    words = [*characters, *(f"{character}</w>" for character in characters)]
    words += ["".join(merge.split(" ")) for merge in merges]
    return {word: place for place, word in enumerate([*words, *SPECIAL])}


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in for every byte: the printable ones first, then the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + place) for place in range(others)]


def _unreadable(path: Path, error: Exception) -> UnreadableFile:
    got = "no such file" if not path.exists() else f"{type(error).__name__}: {error}"
    return UnreadableFile(f"the embedded model's file {path}", got, "Reinstall the package, or name another folder.")
