"""DiffV2IQA's heads as the node finds them, and the scorers that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ..core.errors import BadInput
from ..core.hosts.comfyui.own_nets import layer_ops, place
from ..core.methods.diff_v2_iqa_eyes import EyeFiles
from ..core.methods.diff_v2_iqa_file import is_diff_v2, load_diff_v2
from ..core.methods.diff_v2_iqa_make import (
    SHIPPED,
    asks_for_model,
    pixel_options,
    restorer_file,
    restorer_for,
    scorer_over,
)
from ._heads import heads_folder, loaded_backbone
from ._restorers import PlacedRestorer, cached

if TYPE_CHECKING:
    from ..core.methods.contract import Scorer
    from ..core.methods.diff_v2_iqa import DiffOptions
    from ..core.methods.diff_v2_iqa_head import DiffHead
    from ..core.restoration.contract import Restorer

#: The choice that means the head of this pack, and the one while there is none at all.
BUILT_IN, NONE = "built in", "(no DiffV2IQA head in models/quality_heads)"
_REMEDY = "Train one with latent-critic train diff-v2-iqa and put it into models/quality_heads."


def choices() -> list[str]:
    """The pack's own head where it holds one, and those in models/quality_heads."""
    heads_folder()
    names = [name for name in folder_paths.get_filename_list("quality_heads") if name.endswith(".safetensors")]
    found = [name for name in names if is_diff_v2(folder_paths.get_full_path_or_raise("quality_heads", name))]
    return [*([BUILT_IN] if SHIPPED.is_file() else []), *found] or [NONE]


def file_of(name: str) -> Path:
    """The file behind a choice.

    Raises:
        BadInput: nothing was chosen.
        FileNotFoundError: it is gone.
    """
    if name == NONE:
        raise BadInput("a DiffV2IQA head", "none", _REMEDY)
    if name == BUILT_IN:
        return SHIPPED
    heads_folder()
    return Path(folder_paths.get_full_path_or_raise("quality_heads", name))


def make_scorer(
    path: Path, restorer: Path | None, parts: tuple[Any, Any, Any], options: DiffOptions
) -> tuple[Scorer, str]:
    """The scorer of a head, and words on it.

    Args:
        path: Of the head.
        restorer: File of the pixel-space restorer; the package's own when ``None``.
        parts: MODEL, CLIP and VAE, for a head that was trained with the loaded model as restorer.
        options: What the user chose.

    Raises:
        BadInput: an input that this head needs is missing.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: another restorer or model than that of the head's training.
    """
    head = load_diff_v2(path, layer_ops())
    made = cached(_restorer(head, restorer, parts))
    scorer = scorer_over(made, head, files=EyeFiles(), options=options, place=place, ops=layer_ops())
    return scorer, _report(head, made)


def _restorer(head: DiffHead, file: Path | None, parts: tuple[Any, Any, Any]) -> Restorer:
    if asks_for_model(head):
        return restorer_for(head, backbone=loaded_backbone(*parts))
    return PlacedRestorer(restorer_file(file), pixel_options(head))


def _report(head: DiffHead, restorer: Restorer) -> str:
    meta, shape = head.meta, head.nets.shape
    how = "the loaded model" if asks_for_model(head) else "a pixel-space restorer"
    branches = {
        "both": f"VCG + {float(head.nets.weight):.3g} · VDA", "vcg": "VCG alone", "vda": "VDA alone"
    }  # fmt: skip
    lines = [
        f"{branches[shape.branch]} over {how}; maps from {_named(head.settings.patches)}, vectors from "
        f"{_named(head.settings.vectors)}; trained on {meta.training_set}, {meta.pictures} pictures",
        f"Read: {meta.size_policy}",
    ]
    told = meta.validation
    if "srcc" in told:
        interval = f" [{told['srcc_low']:.3f}, {told['srcc_high']:.3f}]" if "srcc_low" in told else ""
        lines.append(f"Held-back pictures: SRCC {told['srcc']:.3f}{interval}, {told.get('n', 0):g} pictures")
    return "\n".join(lines)


def _named(backbone: str) -> str:
    return {"judge": "the judge's CNN", "vit": "a ViT", "resnet": "ResNet50"}[backbone]
