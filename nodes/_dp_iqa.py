"""DP-IQA's files as the node finds them, and the scorers that they make: frozen, published, ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from safetensors import SafetensorError, safe_open

from ..core.errors import BadInput
from ..core.hosts.comfyui import embedded
from ..core.hosts.comfyui.own_nets import place
from ..core.hosts.comfyui.own_unet import own_model, own_vae
from ..core.hosts.comfyui.residuals import ResidualComfyBackbone
from ..core.methods.dp_iqa import DpIqa, DpOptions
from ..core.methods.dp_iqa_authors import academic_head, kind_of, read_state, student_of, teacher_of
from ..core.methods.dp_iqa_file import SHIPPED, is_dp_iqa, load_dp_iqa
from ..core.methods.dp_iqa_student import DpStudent
from ..core.nets.judge_file import digest
from ._heads import heads_folder, held_back_words
from ._loaded import need_parts

if TYPE_CHECKING:
    from ..core.methods.contract import Scorer
    from ..core.methods.dp_iqa_head import DpHead

#: The choice that needs no file and no input: the head that comes with the package, on the model that does.
OURS = "ours: the embedded model and its head"
_PICKLES = (".pth", ".pt", ".bin")


def choices() -> list[str]:
    """Heads of one's own, what ships, then what may be the authors' files: academic use is never the default."""
    heads_folder()
    names = folder_paths.get_filename_list("quality_heads")
    tensors = [name for name in names if name.endswith(".safetensors")]
    own = [name for name in tensors if is_dp_iqa(file_of(name))]
    theirs = [name for name in tensors if name not in own and _may_be_theirs(file_of(name))]
    return [*own, OURS, *theirs, *(name for name in names if name.endswith(_PICKLES))]


def file_of(name: str) -> Path:
    """The file behind a choice.

    Raises:
        FileNotFoundError: it is gone.
    """
    if name == OURS:
        return SHIPPED
    heads_folder()
    return Path(folder_paths.get_full_path_or_raise("quality_heads", name))


def _may_be_theirs(path: Path) -> bool:
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
    if path == SHIPPED:
        names = [name for name, part in (("MODEL", model), ("CLIP", clip), ("VAE", vae)) if part is not None]
        unread = f"the connected {', '.join(names)} did not judge: this file reads the embedded model"
        return _ours(replace(options, warnings=(unread,)) if names else options)
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


def _ours(options: DpOptions) -> tuple[Scorer, str]:
    parts = embedded.load_model(), embedded.load_clip(), embedded.load_vae()
    scorer, told = _on(parts, load_dp_iqa(SHIPPED), options)
    return scorer, f"Ours: {told}\nThe embedded model, loaded for this scorer; connected parts are not used."


def _frozen(path: Path, model: Any, clip: Any, vae: Any, options: DpOptions) -> tuple[Scorer, str]:
    need_parts(model, clip, vae)
    scorer, told = _on((model, clip, vae), load_dp_iqa(path), options)
    return scorer, f"Frozen: {told}"


def _on(parts: tuple[Any, Any, Any], head: DpHead, options: DpOptions) -> tuple[Scorer, str]:
    """The scorer, and what the head was trained on and how well it did."""
    scorer = DpIqa(ResidualComfyBackbone(*parts), head, options, place)
    meta, nets = head.meta, head.nets
    adapted = [words for words, net in (("text", nets.text_adapter), ("image", nets.img_adapter)) if net is not None]
    learned = f"adapters for {' and '.join(adapted)}, and decoder" if adapted else "decoder without adapters"
    told = f"{learned} on the model as it is, trained on {meta.training_set}, {meta.pictures} pictures"
    return scorer, "\n".join([told, *held_back_words(meta.validation)])
