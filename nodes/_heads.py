"""Heads as nodes use them: the folder quality_heads, a psi under ComfyUI's memory management, the loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ..core.backbone.fingerprint import Fingerprint
from ..core.errors import BadInput, LatentCriticError
from ..core.heads.head_file import load_head
from ..core.hosts.comfyui.backbone import ComfyBackbone
from ..core.hosts.comfyui.own_nets import layer_ops, place
from ..core.methods.hyperfeature_options import HyperfeatureOptions
from ..core.methods.lgdm import SHIPPED
from ..core.methods.psis import make_psi
from ._loaded import need_parts

if TYPE_CHECKING:
    from ..core.perceptual.contract import Psi

FOLDER = "quality_heads"
#: The head that comes with the package.
EMBEDDED = "for the embedded model (shipped)"


def heads_folder() -> Path:
    """Where heads are written; the folder is made known to ComfyUI."""
    folder = Path(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, str(folder))
    return folder


def held_back_words(validation: Mapping[str, Any]) -> list[str]:
    """One line on how well a trained head did on pictures held back; none where that is not known."""
    if "srcc" not in validation:
        return []
    bounds = [f"{validation[name]:.3f}" for name in ("srcc_low", "srcc_high") if name in validation]
    interval = f" [{', '.join(bounds)}]" if bounds else ""
    return [f"Held-back pictures: SRCC {validation['srcc']:.3f}{interval}, {validation.get('n', 0):g} pictures"]


def head_choices() -> list[str]:
    """The heads there are: the user's own, last the one that ships."""
    heads_folder()
    return [*(name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")), EMBEDDED]


def head_path(choice: str) -> Path:
    """The file behind a choice.

    Raises:
        FileNotFoundError: it is gone.
    """
    if choice == EMBEDDED:
        return SHIPPED
    heads_folder()
    return Path(folder_paths.get_full_path_or_raise(FOLDER, choice))


def refuse_other_head(path: Path, method: str, kind: str, backbone: ComfyBackbone) -> None:
    """A head of the same method, kind and checkpoint may be fitted again; nothing else is overwritten.

    Raises:
        BadInput: the file is something else.
    """
    if not path.exists():
        return
    try:
        meta = load_head(path).meta
        same = Fingerprint.from_text(meta.fingerprint).matches(backbone.fingerprint)
    except LatentCriticError as error:
        got = f"a file that cannot be read as one ({error.got})"
    else:
        if (meta.method, meta.kind) == (method, kind) and same:
            return
        on = "" if same else " of another model"
        got = f"one of {meta.method}, {meta.kind.replace('_', ' ')},{on}".removesuffix(",")
    raise BadInput(
        f"no other head as {path.name} in models/{FOLDER}",
        got,
        "Choose another name, or delete or rename that file: it would be overwritten.",
    )


def loaded_backbone(model: Any, clip: Any, vae: Any) -> ComfyBackbone:
    """MODEL, CLIP and VAE as a backbone.

    Raises:
        BadInput: one of them is missing.
    """
    need_parts(model, clip, vae)
    return ComfyBackbone(model, clip, vae)


def placed_psi(options: HyperfeatureOptions, backbone: ComfyBackbone) -> Psi | None:
    """The perceptual term's features, where there is such a term."""
    if options.kind != "guided_path" or options.guidance.zeta2 == 0.0:
        return None
    return make_psi(options.psi, backbone, ops=layer_ops(), place=place)
