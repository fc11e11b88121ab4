"""From a scorer's name to a scorer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import BadInput
from ..files import user_cache
from ..methods import method
from ..methods.on_model import ON_MODEL, WITHOUT_HEAD, read_head, scorer_on, shipped_head

if TYPE_CHECKING:
    from ..methods.contract import Scorer


@dataclass(frozen=True, slots=True)
class OnModel:
    """The head of a scorer on a diffusion model, and that model; a :class:`~.loaded_model.ModelChoice`.

    Attributes:
        head: The head's file.
        model: ``embedded``, or a folder in diffusers' layout.
        checkpoint: A checkpoint's file, inside ComfyUI.
        device: Where it runs.
        restorer: File of diff_v2_iqa's pixel-space restorer, the package's own when ``None``.
        restorations: Folder where diff_v2_iqa's restorations are kept; ``off`` keeps none but rounds them alike, which
            changes no score. ``None`` takes them as the restorer gives them: up to .3 points away from nodes.
    """

    head: Path | None = None
    model: str = "embedded"
    checkpoint: Path | None = None
    device: str = "auto"
    restorer: Path | None = None
    restorations: Path | Literal["off"] | None = None


def load_scorer(
    name: str,
    device: str = "auto",
    weights: str | Path | None = None,
    policy: str = "full",
    on_model: OnModel | None = None,
) -> Scorer:
    """A scorer on a device.

    Args:
        name: In the registry.
        device: ``auto``, ``cpu``, ``cuda`` …
        weights: A judge's file, the shipped one when ``None``.
        policy: The judge's views.
        on_model: Head and model of a scorer that needs them.

    Raises:
        BadInput: unknown, not yet built, not on the command line, no head for one that needs it, or no such device.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: the head was fitted for another model.
    """
    info = method(name)
    if not info.available:
        raise BadInput(
            f"a scorer that this command has ({', '.join(_HERE)})", f"{name}, which is planned", "Use another scorer."
        )
    if name not in _HERE:
        raise BadInput(
            f"a scorer that this command has ({', '.join(_HERE)})",
            f"{name}, which needs {', '.join(info.needs)}",
            "Use it in ComfyUI, where a model is loaded.",
        )
    choice = on_model or OnModel()
    if name not in WITH_HEAD and choice.head is not None:
        got = f"--scorer {name}"
        raise BadInput(f"--head with --scorer {', '.join(WITH_HEAD)}", got, "Name the scorer, or leave the head out.")
    if name in ON_MODEL:
        return _on_model(name, choice)
    if name == RESTORES:
        return _diff_v2(choice)
    place = _device(device)
    from ..methods.judge import SHIPPED, Judge

    return Judge.load(place, SHIPPED if weights is None else weights, policy=policy)


#: Scorers that need a head for a model.
RESTORES = "diff_v2_iqa"
#: In place of a folder for restorations.
OFF = "off"
WITH_HEAD = (*(name for name in ON_MODEL if name not in WITHOUT_HEAD), RESTORES)
#: What `score`, `rank` and `reject` can run.
_HERE = ("judge", *ON_MODEL, RESTORES)


def _on_model(name: str, choice: OnModel) -> Scorer:
    from .loaded_model import comfy_place, load_backbone

    head = read_head(_head_file(name, choice)) if name in WITH_HEAD else None
    return scorer_on(name, load_backbone(choice, name), head, place=comfy_place())


def _diff_v2(choice: OnModel) -> Scorer:
    """A restorer of its own needs no model; a head that was trained with the loaded model as restorer does."""
    from ..methods.diff_v2_iqa_make import SHIPPED, asks_for_model, restorer_for, scorer_over
    from ..restoration.cache import CachedRestorer, RestorationCache
    from .loaded_model import comfy_place, load_backbone

    file = choice.head or (SHIPPED if SHIPPED.is_file() else _head_file(RESTORES, choice))
    head = read_head(file)
    if head.meta.method != RESTORES:
        raise BadInput(f"a head for {RESTORES}", f"one for {head.meta.method}", "Name the scorer that the head is for.")
    backbone = load_backbone(choice, RESTORES) if asks_for_model(head) else None
    device = _device(choice.device)
    restorer = restorer_for(head, file=choice.restorer, backbone=backbone, device=device)
    if choice.restorations is not None:
        cache = None if choice.restorations == OFF else RestorationCache(choice.restorations)
        restorer = CachedRestorer(restorer, cache, needed=False)
    return scorer_over(restorer, head, device=device, place=comfy_place())


def restorations_in(named: str | None) -> Path | Literal["off"]:
    """What ``--restorations`` names; without it the folder in the user's cache, where there is one."""
    if named == OFF:
        return OFF
    return Path(named) if named else user_cache("restorations") or OFF


def _head_file(name: str, choice: OnModel) -> Path:
    """The head that was named, or the one that comes with the package where the embedded model is used."""
    if choice.head is not None:
        return choice.head
    ours = choice.model == "embedded" and choice.checkpoint is None
    found = shipped_head(name) if ours else None
    if found is None:
        raise BadInput(f"a head for {name}", "none", f"Name its file with --head; {_MADE_BY[name]} makes one.")
    return found


_MADE_BY = {
    "lgdm": "latent-critic fit-head",
    "genziqa": "latent-critic train genziqa",
    "dp_iqa": "latent-critic train dp-iqa",
    "diff_v2_iqa": "latent-critic train diff-v2-iqa",
}


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    # PyTorch's four answers: no such device or one without numbers (meta), one without kernels here (a RuntimeError
    # too), one that this build leaves out, and one whose module is not installed.
    except (RuntimeError, AssertionError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput("a device that this PyTorch can use", f"{name} ({reason})", "Use --device cpu.") from error
    return name
