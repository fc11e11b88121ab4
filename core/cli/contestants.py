"""Whom a benchmark measures: scorers that need only images, and those on a loaded model with the heads made for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmark.scoring import Contestant
from ..errors import BadInput
from ..methods import METHODS, method
from ..methods.on_model import ON_MODEL, read_head, scorer_on
from .loaded_model import comfy_backbone, comfy_parts, comfy_place
from .scorers import RESTORES

if TYPE_CHECKING:
    from ..methods.contract import Scorer

_IMAGE_ONLY = ("image",)


@dataclass(frozen=True, slots=True)
class ContestantRequest:
    """Whom to measure.

    Attributes:
        names: Scorers by name; none means the judge.
        every: Every scorer that can run here, in place of ``names``.
        device: Of the scorers that need only images.
        weights: A judge's file, the shipped one when ``None``.
        policy: How many views the judge looks at.
        loaded: Whether ComfyUI's libraries are there, so that a model can be loaded.
        checkpoint: The model's file, or a folder that `latent-critic train ldm` wrote; the embedded one when ``None``.
        heads: Files of heads for that model; each knows its method.
        restorer: File of diff_v2_iqa's pixel-space restorer, the package's own when ``None``.
    """

    names: tuple[str, ...]
    every: bool = False
    device: str = "auto"
    weights: str | None = None
    policy: str = "full"
    loaded: bool = False
    checkpoint: str | None = None
    heads: tuple[str, ...] = ()
    restorer: str | None = None


def contestants(request: ContestantRequest) -> tuple[list[Contestant], list[str]]:
    """The scorers, and for ``every`` the reasons why others cannot be measured.

    Raises:
        BadInput: an unknown scorer, or one that cannot run here.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: a head was made for another model.
    """
    names = tuple(info.name for info in METHODS) if request.every else request.names or ("judge",)
    model = _Loaded(request) if request.loaded else None
    found: list[Contestant] = []
    unmeasured: list[str] = []
    for name in sorted(names, key=lambda name: name != "judge"):
        reason = _cannot(name, model, request)
        if reason is None:
            found.append(_one(name, request, model))
        elif request.every:
            unmeasured.append(f"{name}: {reason}")
        else:
            raise BadInput(f"a scorer that can run here, not {name}", reason, "See latent-critic benchmark --help.")
    return found, unmeasured


def _cannot(name: str, model: _Loaded | None, request: ContestantRequest) -> str | None:
    """Why this scorer cannot be measured, or ``None`` when it can."""
    info = method(name)
    if name == RESTORES:
        return None if _restoring_head(request) else "it needs a head: name its file with --head"
    if info.needs == _IMAGE_ONLY:
        return None if info.available else "planned, not in this release"
    if name not in ON_MODEL:
        return "planned, not in this release" if not info.available else "it cannot be built on the command line"
    if model is None:
        return "it needs a loaded model: name a ComfyUI folder with --comfyui"
    if "head" in info.needs and name not in model.heads:
        return "it needs a head for this model: name its file with --head"
    return None


def _one(name: str, request: ContestantRequest, model: _Loaded | None) -> Contestant:
    from . import scorers

    if name == RESTORES:
        restorer = None if request.restorer is None else Path(request.restorer)
        choice = scorers.OnModel(_restoring_head(request), device=request.device, restorer=restorer)
        return Contestant(scorers.load_scorer(name, on_model=choice))
    if model is None or name not in ON_MODEL:
        return Contestant(scorers.load_scorer(name, request.device, request.weights, request.policy))
    loaded = model
    return Contestant(loaded.scorer(name), lambda: loaded.rows, lambda seed: loaded.scorer(name, seed))


def _restoring_head(request: ContestantRequest) -> Path | None:
    from ..methods.diff_v2_iqa_file import is_diff_v2

    return next((Path(file) for file in request.heads if is_diff_v2(file)), None)


class _Loaded:
    """The model as a backbone, its heads by method, and how many rows went through its denoiser."""

    def __init__(self, request: ContestantRequest) -> None:
        named = request.checkpoint
        is_folder = named is not None and Path(named).is_dir()
        self.parts = comfy_parts(named) if named and is_folder else comfy_parts(checkpoint=named)
        found = [read_head(file) for file in request.heads]
        self.heads = {head.meta.method: head for head in found}
        self.rows = 0
        self.parts[0].model.diffusion_model.register_forward_pre_hook(self._count)

    def scorer(self, name: str, seed: int | None = None) -> Scorer:
        """With other noise for another seed; the first one's for ``None``."""
        head, backbone = self.heads.get(name), comfy_backbone(name, self.parts)
        return scorer_on(name, backbone, head, seed=None if seed is None else _apart(seed), place=comfy_place())

    def _count(self, _: Any, given: tuple[Any, ...]) -> None:
        self.rows += len(given[0])


def _apart(seed: int) -> int:
    """Seeds of levels count on from the first one; a thousand apart, no two draws share any."""
    return 1000 * seed
