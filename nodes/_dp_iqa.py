"""DP-IQA's files as the node finds them, and the scorers that they make: frozen, published, ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from safetensors import SafetensorError, safe_open

from ..core.errors import BadInput
from ..core.hosts.comfyui.own_nets import place
from ..core.hosts.comfyui.own_unet import own_model, own_vae
from ..core.hosts.comfyui.residuals import ResidualComfyBackbone
from ..core.methods.dp_iqa import DpIqa, DpOptions
from ..core.methods.dp_iqa_authors import academic_head, kind_of, read_state, student_of, teacher_of
from ..core.methods.dp_iqa_file import is_dp_iqa, load_dp_iqa
from ..core.methods.dp_iqa_student import DpStudent
from ..core.nets.judge_file import digest
from ._heads import heads_folder
from ._loaded import need_parts

if TYPE_CHECKING:
    from ..core.methods.contract import Scorer

#: The choice where the folder holds no file.
NOTHING = "(no DP-IQA file in models/quality_heads)"
_PICKLES = (".pth", ".pt", ".bin")
_REMEDY = "Train one with latent-critic train dp-iqa and put it into models/quality_heads."


def choices() -> list[str]:
    """Our heads, the authors' layout in safetensors, and pickles that may be the authors' files."""
    heads_folder()
    found = [
        name
        for name in folder_paths.get_filename_list("quality_heads")
        if name.endswith(_PICKLES) or (name.endswith(".safetensors") and _may_be(file_of(name)))
    ]
    return found or [NOTHING]


def file_of(name: str) -> Path:
    """The file behind a choice.

    Raises:
        BadInput: nothing was chosen.
        FileNotFoundError: it is gone.
    """
    if name == NOTHING:
        raise BadInput("a DP-IQA file", "none", _REMEDY)
    heads_folder()
    return Path(folder_paths.get_full_path_or_raise("quality_heads", name))


def _may_be(path: Path) -> bool:
    if is_dp_iqa(path):
        return True
    try:
        with safe_open(path, framework="pt") as handle:
            return any(key.startswith(("QFD.", "base_model.features.")) for key in handle.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def make_scorer(path: Path, model: Any, clip: Any, vae: Any, options: DpOptions) -> tuple[Scorer, str]:
    """What a file's content asks for, and words on it.

    Raises:
        BadInput: an input that this file needs is missing, or keys that do not belong to the layout.
        UnreadableFile: damaged, or a pickle that is no state dict.
        MismatchedBackbone: a head of another model, or a CLIP without its projection.
    """
    if is_dp_iqa(path):
        return _frozen(path, model, clip, vae, options)
    state = read_state(path)
    if kind_of(state) == "student":
        network = student_of(state)
        return DpStudent(
            network, digest(path), place(network)
        ), "Published student: a CNN of its own. Academic use only."
    if clip is None:
        remedy = "Connect OpenAI's whole CLIP ViT-L/14, by Load CLIP."
        raise BadInput("a CLIP for the authors' text", "none", remedy)
    teacher = teacher_of(state)
    del state
    backbone = ResidualComfyBackbone(own_model(teacher.unet), clip, own_vae(teacher.vae))
    backbone.text_features(["a photo"])  # a CLIP without its projection is refused now, not at the first image
    scorer = DpIqa(backbone, academic_head(backbone, teacher), options, place)
    unused = f"; not used by the authors' own forward: {', '.join(teacher.unused)}" if teacher.unused else ""
    return scorer, f"Published: the fine-tuned U-Net, a model of its own. Academic use only{unused}."


def _frozen(path: Path, model: Any, clip: Any, vae: Any, options: DpOptions) -> tuple[Scorer, str]:
    need_parts(model, clip, vae)
    head = load_dp_iqa(path)
    scorer = DpIqa(ResidualComfyBackbone(model, clip, vae), head, options, place)
    meta, validation = head.meta, head.meta.validation
    lines = [
        f"Frozen: adapters and decoder on the loaded model, trained on {meta.training_set}, {meta.pictures} pictures"
    ]
    if "srcc" in validation:
        interval = f" [{validation['srcc_low']:.3f}, {validation['srcc_high']:.3f}]" if "srcc_low" in validation else ""
        lines.append(
            f"Held-back pictures: SRCC {validation['srcc']:.3f}{interval}, {validation.get('n', 0):g} pictures"
        )
    return scorer, "\n".join(lines)
