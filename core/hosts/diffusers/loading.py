"""A folder on this disk → a pipeline with a U-Net; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from ...errors import UnreadableFile
from ...nets import critic_ldm
from .embedded import load_embedded

EMBEDDED = "embedded"


def load_pipeline(name: str, device: str = "cpu") -> Any:
    """The shipped embedded model (``embedded``), or a model folder in diffusers' layout, in fp32 without gradients.

    Raises:
        UnreadableFile: no such folder, or no model in it.
    """
    folder = critic_ldm.SHIPPED if name == EMBEDDED else Path(name)
    if not (folder / "model_index.json").is_file():
        remedy = "Name a folder in diffusers' layout, or embedded."
        raise UnreadableFile(f"a model folder at {folder}", "no model_index.json", remedy)
    pipeline = load_embedded(folder) if _is_embedded(folder) else _plain(folder)
    for part in ("vae", "unet", "text_encoder", "text_encoder_2"):
        module = getattr(pipeline, part, None)
        if module is not None:
            module.eval().requires_grad_(False).to(device)
    return pipeline


def _is_embedded(folder: Path) -> bool:
    """Whether the token embedding is stored in two factors, as only our own model's is."""
    config = folder / "text_encoder" / "config.json"
    return config.is_file() and "embedding_rank" in json.loads(config.read_text(encoding="utf-8"))


def _plain(folder: Path) -> Any:
    try:
        return DiffusionPipeline.from_pretrained(folder, local_files_only=True, torch_dtype=torch.float32)
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        got = f"{type(error).__name__}: {str(error)[:200]}"
        raise UnreadableFile(f"a Stable Diffusion model at {folder}", got, "Download it again.") from error
