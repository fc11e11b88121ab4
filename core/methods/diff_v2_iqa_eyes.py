"""The frozen backbones that a DiffV2IQA head reads, with weights that ship, lie in the user's cache or in the head."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UnreadableFile
from ..nets.diff_v2_eyes import DiffEyes
from ..nets.diff_v2_resnet import ResNet
from ..nets.diff_v2_vit import VisionTransformer, vit_weights
from ..nets.judge_file import read
from .judge import SHIPPED

if TYPE_CHECKING:
    from .diff_v2_iqa_settings import DiffSettings

#: timm's weights in Hugging Face's cache, and torchvision's in its own.
VIT_REPOSITORY = "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"
RESNET_FILE = "resnet50-0676ba61.pth"


@dataclass(frozen=True, slots=True)
class EyeFiles:
    """Weights that neither ship nor lie in the head.

    Attributes:
        vit: timm's file of the ViT; its place in Hugging Face's cache when left out.
        resnet: torchvision's or timm's file of ResNet50; torchvision's cache when left out.
    """

    vit: Path | None = None
    resnet: Path | None = None


@dataclass(frozen=True, slots=True)
class Eyes:
    """Backbones and what tells them apart.

    Attributes:
        network: All of them in one module, for a host to hold and place.
        identity: Digest of each one's weights, by its name.
    """

    network: DiffEyes
    identity: Mapping[str, str]


def load_eyes(
    settings: DiffSettings,
    files: EyeFiles | None = None,
    vit: VisionTransformer | None = None,
    *,
    branch: str = "both",
    ops: Any = nn,
) -> Eyes:
    """Backbones of these settings. Nothing is downloaded.

    Args:
        settings: Which.
        files: Where their weights lie.
        vit: The head's own ViT, in place of a file.
        branch: ``vcg`` or ``vda`` alone leave the other's backbone out.
        ops: Layers of a host that casts weights by itself.

    Raises:
        UnreadableFile: a file is missing, or of another network.
    """
    files, identity = files or EyeFiles(), dict[str, str]()
    judge = None
    with torch.random.fork_rng(devices=[]):  # building draws weights that are overwritten
        if "judge" in (settings.patches, settings.vectors):
            judge = read(SHIPPED, ops)[0].backbone
            identity["judge"] = weights_digest(judge)  # its trunk alone: another head judges with the same eyes
        patches, vectors = judge, judge
        if settings.patches == "vit" and branch != "vda":
            patches = vit or _vit(settings, files.vit, ops)
            identity["vit"] = weights_digest(patches)
        if settings.vectors == "resnet" and branch != "vcg":
            vectors = _resnet(files.resnet, ops)
            identity["resnet"] = weights_digest(vectors)
    eyes = DiffEyes(
        None if branch == "vda" else patches, None if branch == "vcg" else vectors, settings.blocks
    )  # fmt: skip
    return Eyes(eyes.eval().requires_grad_(False), identity)


def weights_digest(network: nn.Module) -> str:
    """16 hex digits of all weights."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def cached_vit() -> Path | None:
    """The ViT's file in Hugging Face's cache, where timm keeps it; ``None`` if it is not there."""
    try:  # by name: it comes with transformers, and is not needed where it does not
        hub = import_module("huggingface_hub")
    except ImportError:
        return None
    found = hub.try_to_load_from_cache(VIT_REPOSITORY, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def cached_resnet() -> Path:
    """Where torchvision keeps ResNet50's weights once it has fetched them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / RESNET_FILE


def _vit(settings: DiffSettings, file: Path | None, ops: Any) -> VisionTransformer:
    network = VisionTransformer(settings.vit, ops)
    path = file or cached_vit() or Path(VIT_REPOSITORY, "model.safetensors")
    remedy = (
        f"Have timm fetch it (timm.create_model('hf_hub:{VIT_REPOSITORY}', pretrained=True)), or name the file."
    )  # fmt: skip
    _fill(network, path, f"timm's weights of the ViT ({VIT_REPOSITORY})", remedy)
    return network


def _resnet(file: Path | None, ops: Any) -> ResNet:
    network = ResNet(ops=ops)
    remedy = f"Fetch https://download.pytorch.org/models/{RESNET_FILE} into that folder, or name the file."
    _fill(network, file or cached_resnet(), f"torchvision's weights of ResNet50 ({RESNET_FILE})", remedy)
    return network


def _fill(network: nn.Module, path: Path, what: str, remedy: str) -> None:
    try:
        state: dict[str, Tensor] = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        )
        state = vit_weights(state) if isinstance(network, VisionTransformer) else state
        network.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        )
    except (
        OSError, SafetensorError, UnpicklingError, RuntimeError, LookupError, ValueError, EOFError, AttributeError,
    ) as error:  # fmt: skip
        got = f"no file {path}" if not path.exists() else f"{type(error).__name__} in {path}: {str(error)[:300]}"
        raise UnreadableFile(what, got, remedy) from error
