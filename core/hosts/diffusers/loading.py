"""A folder or a file on this disk → a pipeline; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError

from ...errors import BadInput, UnreadableFile
from ...nets import critic_ldm
from .embedded import load_embedded

EMBEDDED = "embedded"
_INDEX, _SUFFIX = "model_index.json", ".safetensors"
_UNREADABLE = (OSError, ValueError, AttributeError, RuntimeError, KeyError, TypeError, SafetensorError)


def load_pipeline(name: str, device: str = "cpu", config: str | None = None) -> Any:
    """A pipeline in fp32 without gradients.

    Args:
        name: ``embedded`` for the shipped model, a model folder in diffusers' layout, or one safetensors file.
        device: Where it runs.
        config: With a file: a folder in diffusers' layout of the same family; its weights are not needed.

    Raises:
        UnreadableFile: no such folder or file, or no model in it.
        BadInput: a file without a configuration, or a device that this machine lacks.
    """
    _check_device(device)
    pipeline = _from_file(Path(name), config) if Path(name).suffix == _SUFFIX else _from_folder(name)
    for part in ("vae", "unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"):
        module = getattr(pipeline, part, None)
        if module is not None:
            # Module's own: diffusers' warns of parts that have to stay in fp32, which all of them are here.
            torch.nn.Module.to(module.eval().requires_grad_(False), device, torch.float32)
    return pipeline


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, ImportError) as error:
        got = f"{device}: {str(error).splitlines()[0][:200]}"
        raise BadInput("a device that PyTorch has on this machine", got, "Name cpu, or another one.") from error


def _from_folder(name: str) -> Any:
    folder = critic_ldm.SHIPPED if name == EMBEDDED else Path(name)
    if not (folder / _INDEX).is_file():
        remedy = "Name a folder in diffusers' layout, one safetensors file, or embedded."
        raise UnreadableFile(f"a model folder at {folder}", f"no {_INDEX}", remedy)
    return load_embedded(folder) if _is_embedded(folder) else _plain(folder)


def _from_file(path: Path, config: str | None) -> Any:
    if not path.is_file():
        raise UnreadableFile(f"a checkpoint at {path}", "no such file", "Check the path.")
    if config is None or not (Path(config) / _INDEX).is_file():
        remedy = "Name a folder in diffusers' layout of the same family; its weights are not needed."
        raise BadInput("a configuration for one safetensors file", repr(config), remedy)
    told = json.loads((Path(config) / _INDEX).read_text(encoding="utf-8")).get("_class_name", "")
    kind = getattr(diffusers, told, None)
    if not hasattr(kind, "from_single_file"):
        raise UnreadableFile(f"a pipeline that reads one file, named in {config}", repr(told), "Take another folder.")
    try:
        return kind.from_single_file(str(path), config=config, local_files_only=True)  # type: ignore[union-attr]
    except _UNREADABLE as error:
        got = f"{type(error).__name__}: {str(error)[:200]}"
        raise UnreadableFile(f"a checkpoint of {told} at {path}", got, "Take the folder of its family.") from error


def _is_embedded(folder: Path) -> bool:
    """Whether the token embedding is stored in two factors, as only our own model's is."""
    config = folder / "text_encoder" / "config.json"
    return config.is_file() and "embedding_rank" in json.loads(config.read_text(encoding="utf-8"))


def _plain(folder: Path) -> Any:
    try:
        # SD3 is often kept without its largest text encoder, which diffusers wants to be told.
        absent = {name: None for name in ("text_encoder_3", "tokenizer_3") if not (folder / name).is_dir()}
        told = json.loads((folder / _INDEX).read_text(encoding="utf-8")).get("_class_name", "")
        given = absent if told == "StableDiffusion3Pipeline" else {}
        return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **given)
    except _UNREADABLE as error:
        got = f"{type(error).__name__}: {str(error)[:200]}"
        raise UnreadableFile(f"a model at {folder}", got, "Download it again.") from error
