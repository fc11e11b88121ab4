"""Whom a benchmark measures: scorers that need only images, and those on a loaded model with the heads made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmark.scoring import Contestant
from ..errors import BadInput
from ..methods import METHODS, method

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
    """

    names: tuple[str, ...]
    every: bool = False
    device: str = "auto"
    weights: str | None = None
    policy: str = "full"
    loaded: bool = False
    checkpoint: str | None = None
    heads: tuple[str, ...] = ()


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
        reason = _cannot(name, model)
        if reason is None:
            found.append(_one(name, request, model))
        elif request.every:
            unmeasured.append(f"{name}: {reason}")
        else:
            raise BadInput(f"a scorer that can run here, not {name}", reason, "See latent-critic benchmark --help.")
    return found, unmeasured


def _cannot(name: str, model: _Loaded | None) -> str | None:
    """Why this scorer cannot be measured, or ``None`` when it can."""
    info = method(name)
    if info.needs == _IMAGE_ONLY:
        return None if info.available else "planned, not in this release"
    if name not in _BUILDERS:
        return "planned, not in this release" if not info.available else "it cannot be built on the command line"
    if model is None:
        return "it needs a loaded model: name a ComfyUI folder with --comfyui"
    if "head" in info.needs and name not in model.heads:
        return "it needs a head for this model: name its file with --head"
    return None


def _one(name: str, request: ContestantRequest, model: _Loaded | None) -> Contestant:
    from . import scorers

    if model is None or name not in _BUILDERS:
        return Contestant(scorers.load_scorer(name, request.device, request.weights, request.policy))
    build = _BUILDERS[name]
    loaded = model
    return Contestant(build(model, None), lambda: loaded.rows, lambda seed: build(loaded, seed))


class _Loaded:
    """The model as a backbone, its heads by method, and how many rows went through its denoiser."""

    def __init__(self, request: ContestantRequest) -> None:
        from ..hosts.comfyui.adaptable import AdaptableComfyBackbone

        model, clip, vae = self.parts = _model(request.checkpoint)
        self.backbone = AdaptableComfyBackbone(model, clip, vae)
        self.heads = dict(_head(Path(file)) for file in request.heads)
        self.rows = 0
        model.model.diffusion_model.register_forward_pre_hook(self._count)

    def _count(self, _: Any, given: tuple[Any, ...]) -> None:
        self.rows += len(given[0])


def _model(checkpoint: str | None) -> tuple[Any, Any, Any]:
    if checkpoint is None or Path(checkpoint).is_dir():
        from ..hosts.comfyui import embedded
        from ..nets.critic_ldm import SHIPPED

        folder = SHIPPED if checkpoint is None else Path(checkpoint)
        return embedded.load_model(folder), embedded.load_clip(folder), embedded.load_vae(folder)
    from ..hosts.comfyui.standalone import load_checkpoint

    return load_checkpoint(Path(checkpoint))


def _head(path: Path) -> tuple[str, Any]:
    """A head by its method, whatever wrote it."""
    from ..heads.head_file import load_head
    from ..methods.dp_iqa_file import is_dp_iqa, load_dp_iqa
    from ..methods.genziqa_file import is_genziqa, load_genziqa

    head: Any = (
        load_genziqa(path) if is_genziqa(path) else load_dp_iqa(path) if is_dp_iqa(path) else load_head(path)
    )  # fmt: skip
    return head.meta.method, head


def _zero_shot(model: _Loaded, seed: int | None) -> Scorer:
    from ..methods.zero_shot import ZeroShot, ZeroShotOptions

    return ZeroShot(model.backbone, options=ZeroShotOptions(seed=_apart(seed)))


def _lgdm(model: _Loaded, seed: int | None) -> Scorer:
    from ..methods.lgdm import Lgdm, options_of
    from ..methods.psis import make_psi

    head = model.heads["lgdm"]
    if seed is not None:
        told = dict(head.meta.settings)
        told["guidance"] = {**told["guidance"], "seed": _apart(seed)}
        head = replace(head, meta=replace(head.meta, settings=told))
    name = options_of(head).psi
    return Lgdm(model.backbone, head, None if name is None else make_psi(name, model.backbone))


def _genziqa(model: _Loaded, seed: int | None) -> Scorer:
    from ..methods.genziqa import GenzIQA

    head = model.heads["genziqa"]
    if seed is not None:
        head = replace(head, settings=replace(head.settings, seed=_apart(seed)))
    return GenzIQA(model.backbone, head)


def _dp_iqa(model: _Loaded, seed: int | None) -> Scorer:
    """It draws nothing: every seed gives the same scores."""
    from ..hosts.comfyui.own_nets import place
    from ..hosts.comfyui.residuals import ResidualComfyBackbone
    from ..methods.dp_iqa import DpIqa

    return DpIqa(ResidualComfyBackbone(*model.parts), model.heads["dp_iqa"], place=place)


def _apart(seed: int | None) -> int:
    """Seeds of levels count on from the first one; a thousand apart, no two draws share any."""
    return 0 if seed is None else 1000 * seed


_BUILDERS: dict[str, Callable[[_Loaded, int | None], Scorer]] = {
    "zero_shot": _zero_shot,
    "lgdm": _lgdm,
    "genziqa": _genziqa,
    "dp_iqa": _dp_iqa,
}
