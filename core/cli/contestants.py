"""Whom a benchmark measures: scorers that need only images, and those on one loaded model with its heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmark.scoring import Contestant
from ..errors import BadInput, MissingDependency
from ..methods import METHODS, method
from ..methods.on_model import ON_MODEL, WITHOUT_HEAD, read_head, scorer_on, shipped_head
from .loaded_model import comfy_place, load_model
from .scorers import RESTORES, OnModel

if TYPE_CHECKING:
    from ..methods.contract import Scorer


@dataclass(frozen=True, slots=True)
class ContestantRequest:
    """Whom to measure.

    Attributes:
        names: Scorers by name; none means the judge.
        every: Every scorer that can run here, in place of ``names``.
        device: Where they run; inside ComfyUI, a model runs where ComfyUI puts it.
        weights: A judge's file, the shipped one when ``None``.
        policy: How many views the judge looks at.
        model: ``embedded``, or a folder in diffusers' layout.
        checkpoint: The model's file, or a folder that `latent-critic train ldm` wrote, inside ComfyUI.
        heads: Files of heads for that model; each knows its method. For the embedded one, the heads that ship stand in
            for those that are not named.
        restorer: File of diff_v2_iqa's pixel-space restorer, the package's own when ``None``.
    """

    names: tuple[str, ...]
    every: bool = False
    device: str = "auto"
    weights: str | None = None
    policy: str = "full"
    model: str = "embedded"
    checkpoint: str | None = None
    heads: tuple[str, ...] = ()
    restorer: str | None = None


def contestants(request: ContestantRequest) -> tuple[list[Contestant], list[str]]:
    """The scorers, and for ``every`` the reasons why others cannot be measured.

    Raises:
        BadInput: an unknown scorer, or one that cannot run here.
        UnreadableFile: a file is missing or damaged.
        MismatchedBackbone: a head was made for another model.
        MissingDependency: nothing that could run a model is installed.
    """
    names = tuple(info.name for info in METHODS) if request.every else request.names or ("judge",)
    lineup = _Lineup(request)
    found: list[Contestant] = []
    unmeasured: list[str] = []
    for name in sorted(names, key=lambda name: name != "judge"):
        reason = _cannot(name, lineup)
        if reason is None:
            try:
                found.append(lineup.one(name))
            except MissingDependency as error:
                if not request.every:
                    raise
                reason = str(error)
        if reason is not None and not request.every:
            raise BadInput(f"a scorer that can run here, not {name}", reason, "See latent-critic benchmark --help.")
        if reason is not None:
            unmeasured.append(f"{name}: {reason}")
    return found, unmeasured


def _cannot(name: str, lineup: _Lineup) -> str | None:
    """Why this scorer cannot be measured, or ``None`` when it can."""
    if not method(name).available:
        return "planned, not in this release"
    if (name in ON_MODEL or name == RESTORES) and name not in WITHOUT_HEAD and lineup.head(name) is None:
        return "it needs a head for this model: name its file with --head"
    return None


class _Lineup:
    """What a request names, loaded when it is first needed; one model for all scorers."""

    def __init__(self, request: ContestantRequest) -> None:
        from ..methods.diff_v2_iqa_file import is_diff_v2

        self._request = request
        restoring = [Path(file) for file in request.heads if is_diff_v2(file)]
        self._restoring = restoring[0] if restoring else None
        others = [read_head(file) for file in request.heads if Path(file) not in restoring]
        self._heads = {head.meta.method: head for head in others}
        self._model: _Counted | None = None

    def head(self, name: str) -> object | None:
        """The head that was named for a scorer, or the one that ships for the embedded model."""
        if name == RESTORES:
            from ..methods.diff_v2_iqa_make import SHIPPED

            return self._restoring or (SHIPPED if SHIPPED.is_file() else None)
        if name not in self._heads and self._request.model == "embedded" and self._request.checkpoint is None:
            shipped = shipped_head(name)
            if shipped is not None:
                self._heads[name] = read_head(shipped)
        return self._heads.get(name)

    def one(self, name: str) -> Contestant:
        """A scorer, ready to be measured."""
        from . import scorers

        request = self._request
        if name == RESTORES:
            restorer = None if request.restorer is None else Path(request.restorer)
            choice = OnModel(self._restoring, request.model, _path(request.checkpoint), request.device, restorer)
            return restoring(scorers.load_scorer(name, on_model=choice))
        if name not in ON_MODEL:
            return Contestant(scorers.load_scorer(name, request.device, request.weights, request.policy))
        model = self._loaded()
        head = None if name in WITHOUT_HEAD else self.head(name)
        return Contestant(model.scorer(name, head), lambda: model.rows, lambda seed: model.scorer(name, head, seed))

    def _loaded(self) -> _Counted:
        if self._model is None:
            self._model = _Counted(self._request)
        return self._model


class _Counted:
    """The model, and how many rows went through its denoiser."""

    def __init__(self, request: ContestantRequest) -> None:
        checkpoint = _path(request.checkpoint)
        folder = checkpoint is not None and checkpoint.is_dir()
        choice = OnModel(
            model=str(checkpoint) if folder else request.model,
            checkpoint=None if folder else checkpoint,
            device=request.device,
        )
        self._model = load_model(choice)
        self.rows = 0
        self._model.denoiser.register_forward_pre_hook(self._count, with_kwargs=True)

    def scorer(self, name: str, head: Any, seed: int | None = None) -> Scorer:
        """With other noise for another seed; the first one's for ``None``."""
        backbone = self._model.backbone(name)
        return scorer_on(name, backbone, head, seed=None if seed is None else _apart(seed), place=comfy_place())

    def _count(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        # diffusers calls its U-Nets with "sample", its transformers with "hidden_states"; ComfyUI names nothing.
        self.rows += len(given[0] if given else named["sample"] if "sample" in named else named["hidden_states"])


def restoring(scorer: Scorer) -> Contestant:
    """A DiffV2IQA scorer, the calls of its restorer counted."""
    from ..methods.diff_v2_iqa import DiffV2IQA

    return Contestant(scorer, (lambda: scorer.calls) if isinstance(scorer, DiffV2IQA) else None)


def _path(named: str | None) -> Path | None:
    return None if named is None else Path(named)


def _apart(seed: int) -> int:
    """Seeds of levels count on from the first one; a thousand apart, no two draws share any."""
    return 1000 * seed
