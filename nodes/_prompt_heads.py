"""GenzIQA heads as nodes find them: the files in models/quality_heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ..core.errors import BadInput
from ..core.methods.genziqa_authors import import_authors
from ..core.methods.genziqa_file import SHIPPED, is_genziqa, load_genziqa

if TYPE_CHECKING:
    from ..core.backbone.adaptation import AdaptableBackbone
    from ..core.methods.genziqa_head import GenzHead

FOLDER = "quality_heads"
#: The head that comes with the package, and the family of the model that it is for.
EMBEDDED, _EMBEDDED_FAMILY = "for the embedded model (shipped)", "critic_ldm"
#: The choice that leaves LoRA out.
NO_LORA = "none"
_PICKLES = (".pth", ".pt", ".bin")
_REMEDY = "Train one with latent-critic train genziqa and put it into models/quality_heads."


def _names() -> list[str]:
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir, FOLDER)))
    return folder_paths.get_filename_list(FOLDER)


def head_choices() -> list[str]:
    """Our own GenzIQA heads, pickles that may be the authors' context files, and last the shipped head."""
    return [*(name for name in _names() if name.endswith(_PICKLES) or _is_ours(name)), EMBEDDED]


def _is_ours(name: str) -> bool:
    return name.endswith(".safetensors") and is_genziqa(head_file(name))


def lora_choices() -> list[str]:
    """Files that may hold the authors' LoRA: a pickle's name does not tell it from their context file."""
    return [
        NO_LORA,
        *(name for name in _names() if name.endswith((".safetensors", *_PICKLES)) and not _is_ours(name)),
    ]


def head_file(name: str) -> Path:
    """The file behind a choice.

    Raises:
        FileNotFoundError: it is gone.
    """
    return SHIPPED if name == EMBEDDED else Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def head_of(backbone: AdaptableBackbone, head: str, lora: str) -> GenzHead:
    """The head behind the choices; a pickle is imported as the authors' context file.

    Raises:
        BadInput: the shipped head with another model than the embedded one, or LoRA beside a head of ours.
        UnreadableFile: damaged.
        MismatchedBackbone: the authors' files are not for this model.
    """
    if head == EMBEDDED and backbone.family.name != _EMBEDDED_FAMILY:
        raise BadInput(f"a GenzIQA head for {backbone.family.name}", "the one for the embedded model", _REMEDY)
    if head.endswith(_PICKLES):
        return import_authors(backbone, head_file(head), None if lora == NO_LORA else head_file(lora))
    if lora != NO_LORA:
        raise BadInput("LoRA beside the authors' context file only", lora, "Set authors_lora to none.")
    return load_genziqa(head_file(head))
