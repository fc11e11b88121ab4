"""The restorer that a DiffV2IQA head was trained with, and the scorer of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..restoration.cache import CachedRestorer, RestorationCache
from ..restoration.shared import SharedOptions, SharedRestorer
from ..restoration.sr3 import Sr3Options, load_sr3
from .diff_v2_iqa import DiffOptions, DiffV2IQA
from .diff_v2_iqa_eyes import EyeFiles, load_eyes

if TYPE_CHECKING:
    import torch

    from ..backbone.contracts import Backbone
    from ..restoration.contract import Restorer
    from .diff_v2_iqa_head import DiffHead
    from .on_model import Place

_ASSETS = Path(__file__).parents[1] / "assets"
#: The restorer and the head that come with the package, where they do.
SHIPPED_RESTORER = _ASSETS / "restorer" / "restorer.safetensors"
SHIPPED = _ASSETS / "diff_v2_iqa" / "head.safetensors"


def asks_for_model(head: DiffHead) -> bool:
    """Whether it was trained with the loaded model as restorer."""
    return head.meta.identity.get("restorer.name") == "shared"


def restorer_for(
    head: DiffHead,
    *,
    file: Path | None = None,
    backbone: Backbone | None = None,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
) -> Restorer:
    """The restorer of a head's training, with its settings.

    Args:
        head: Whose.
        file: Of the pixel-space restorer; the one of the package when left out.
        backbone: The loaded model, for a head that was trained with one.
        folder: Where restorations are kept between runs; nowhere when left out.
        device: Of the pixel-space restorer.

    Raises:
        BadInput: no model for a head that needs one, or no restorer comes with the package.
        UnreadableFile: the restorer's file is damaged.
    """
    if asks_for_model(head):
        if backbone is None:
            raise BadInput("a model for a head that restores with it", "none", "Connect or name the model.")
        settings = _settings(head)
        told = {**settings, **{name: tuple(settings[name]) for name in ("timesteps", "kept") if name in settings}}
        made: Restorer = SharedRestorer(backbone, SharedOptions(**told))
    else:
        made = load_sr3(restorer_file(file), pixel_options(head), device)
    return made if folder is None else CachedRestorer(made, RestorationCache(folder))


def pixel_options(head: DiffHead) -> Sr3Options | None:
    """The settings of a pixel-space restorer at the head's training; ``None`` where its file does not tell them."""
    settings = _settings(head)
    return Sr3Options(**settings) if settings else None


def _settings(head: DiffHead) -> dict[str, Any]:
    return json.loads(head.meta.identity.get("restorer.settings", "{}"))


def restorer_file(file: Path | None = None) -> Path:
    """This file, or the one of the package.

    Raises:
        BadInput: none comes with the package.
    """
    if file is None and not SHIPPED_RESTORER.is_file():
        remedy = "Name its file; latent-critic train restorer makes one."
        raise BadInput("a pixel-space restorer", "none in the package", remedy)
    return file or SHIPPED_RESTORER


def make_diff_v2(
    head: DiffHead,
    *,
    restorer: Path | None = None,
    backbone: Backbone | None = None,
    files: EyeFiles | None = None,
    options: DiffOptions | None = None,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    place: Place | None = None,
    ops: Any = None,
) -> DiffV2IQA:
    """A scorer of a head, on the restorer of its training; see :func:`restorer_for` and :class:`DiffV2IQA`.

    Raises:
        MismatchedBackbone: another restorer, model or backbone than those of the training.
        UnreadableFile: a file is missing or damaged.
    """
    found = restorer_for(head, file=restorer, backbone=backbone, folder=folder, device=device)
    return scorer_over(found, head, files=files, options=options, device=device, place=place, ops=ops)


def scorer_over(
    restorer: Restorer,
    head: DiffHead,
    *,
    files: EyeFiles | None = None,
    options: DiffOptions | None = None,
    device: torch.device | str = "cpu",
    place: Place | None = None,
    ops: Any = None,
) -> DiffV2IQA:
    """As :func:`make_diff_v2`, on a restorer that is there."""
    given = {} if ops is None else {"ops": ops}
    eyes = load_eyes(head.settings, files, head.vit, branch=head.nets.shape.branch, **given)
    return DiffV2IQA(restorer, head, eyes, options, place, device)
