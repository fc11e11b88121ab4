"""Train a DP-IQA head: adapters and decoder, nothing of the model.

After the facts of DP-IQA (2024, arXiv 2405.19996), reimplemented, not by its authors: squared error on MOS / 100, and
the margin ranking of the paper's figure. Ours on top: the model stays frozen, features that no adapter changes are
computed once, a moving average of the weights, validation by content, and runs that can be killed at any moment.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..backbone.fingerprint import Fingerprint
from ..errors import BadInput
from ..methods.dp_iqa_file import load_dp_iqa, rounded, save_dp_iqa
from ..methods.dp_iqa_head import DpHead, DpNets, fitting_shape, grown, untrained
from ..methods.dp_iqa_reader import MapReader
from ..methods.dp_iqa_text import text_sequence
from .dp_iqa_data import Drawn, split
from .dp_iqa_forward import Forward
from .dp_iqa_maps import MapCache
from .dp_iqa_request import DpRequest
from .features import content_of
from .genziqa_world import Alone, World
from .ldm import state as states
from .rated_run import RatedRun, agreed
from .stepping import Watch, take_steps

if TYPE_CHECKING:
    from ..backbone.residuals import ResidualBackbone

#: Pictures behind the decoder's first centre and scale.
_STANDARDISE_ON = 200


@dataclass(frozen=True, slots=True)
class DpResult:
    """What came out.

    Attributes:
        head: The head at the best validation, as written; ``None`` while minutes ran out before the last step.
        validation: Its agreement with people on the held-back pictures.
        step: Steps made in all.
        seconds_per_step: Of the steps of this call.
    """

    head: DpHead | None
    validation: dict[str, Any]
    step: int
    seconds_per_step: float


def train_dp_iqa(
    request: DpRequest, backbone: ResidualBackbone, watch: Watch | None = None, world: World | None = None
) -> DpResult:
    """Train, validate, write.

    Args:
        request: What to train.
        backbone: A host whose forwards carry gradients, on the device to train on.
        watch: Told of progress.
        world: Several processes; alone when left out.

    Raises:
        BadInput: too few pictures, or a saved state of another request.
        UnreadableFile: a picture, the head to begin from, or the saved state cannot be read.
        MismatchedBackbone: the head to begin from is not this model's.
    """
    run = _Run(request, backbone, watch, world or Alone())
    run.begin()
    seconds = take_steps(run, request)
    if run.state.step < request.steps:
        return DpResult(None, dict(run.state.notes.get("best", {})), run.state.step, seconds)
    head, validation = run.finish()
    return DpResult(head, validation, run.state.step, seconds)


class _Run(RatedRun):
    """One run: the request, the state, and what is fixed between them."""

    stage = "dp_iqa"

    def __init__(self, request: DpRequest, backbone: ResidualBackbone, watch: Watch | None, world: World) -> None:
        self.request, self.backbone = request, backbone
        part = split(request)
        self.sequence = text_sequence(backbone, request.settings.text, request.run / "text")
        self.head = self._first_head()
        device = backbone.noise((1,), 0).device
        nets = self.head.nets.requires_grad_(True).to(device)
        self.cached = nets.text_adapter is None and nets.img_adapter is None
        self.forward = self._forward_of(self.head)
        trained: dict[str, nn.Module] = {"QFD": nets.QFD}
        if request.freeze_decoder:
            nets.QFD.requires_grad_(False)
            trained = {}
        for name in ("text_adapter", "img_adapter"):
            module = getattr(nets, name)
            if module is not None:
                trained[name] = module
        if not trained:
            raise BadInput("something to train", "a frozen decoder and no adapters", "Give it adapters.")
        least = min(request.batch, len(part.train))
        if least < world.size:
            expected = f"a batch of at least {world.size} pictures, one for each process"
            raise BadInput(expected, str(least), "Raise the batch, or start fewer processes.")
        best = copy.deepcopy(nets).requires_grad_(False)
        frozen: dict[str, nn.Module] = {"best": best}
        if "QFD" not in trained:
            frozen["QFD"] = nets.QFD
        state = states.begin(trained, frozen, 0, request.decay)
        super().__init__(request, part, nets, state, watch, world, device)

    def _first_head(self) -> DpHead:
        request, settings = self.request, self.request.settings
        start = None if request.start is None else load_dp_iqa(request.start)
        if start is not None and start.settings != settings:
            raise BadInput(f"a start read as {start.settings}", str(settings), "Give the same settings.")
        known = {} if start is None else _sizes_of(start, request.sizes)
        sizes = {"side": settings.side, **known, **request.sizes}
        shape = fitting_shape(self.backbone.family, self.sequence.tokens.shape[1], **sizes)
        if start is None:
            return untrained(self.backbone, shape, settings, request.seed)
        head = grown(
            start, text_hidden=shape.text_hidden, image_width=shape.image_width, image_blocks=shape.image_blocks
        )
        head.check(self.backbone)
        return head

    def _forward_of(self, head: DpHead) -> Forward:
        request, cache = self.request, None
        if self.cached:
            cache = MapCache(request.run / "maps", MapReader(self.backbone, head, None), head, self.sequence)
        return Forward(
            self.backbone, head, self.sequence, rows=request.rows, again=request.checkpoint, drop=request.drop,
            cache=cache,
        )  # fmt: skip

    # Beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Features where they can be kept, then go on from a saved state, or set the decoder's scale."""
        if self.forward.cache is not None:
            paths = [image.path for image in (*self.part.held, *self.part.train)]
            self.forward.cache.extract(paths, self.tell("features"))
        if self.resumed():
            return
        if self.request.start is None:
            images = self.part.train[:_STANDARDISE_ON]
            means, deviations = self.forward.statistics([Drawn(image, False) for image in images])
            self.head.nets.QFD.standardise(means, deviations)
            best = self.state.frozen["best"]
            assert isinstance(best, DpNets)
            best.QFD.standardise(means, deviations)
            with torch.no_grad():
                self.head.nets.QFD.fc3.bias.fill_(self.mean_rating())
            self.begin_average()
        self.state.notes = {**self.notes(), "model": self.backbone.fingerprint.to_text(), "best": {}}

    def told(self) -> dict[str, Any]:
        """The model's other parts, and the head to begin from."""
        start = self.request.start
        return {
            "model's parts": dict(self.backbone.identity),
            "start": None if start is None else content_of(start),
        }

    def differs(self, notes: Mapping[str, Any]) -> str | None:
        """The model's sketch needs no more than to match."""
        other = super().differs(notes)
        if other is None and not Fingerprint.from_text(notes["model"]).matches(self.backbone.fingerprint):
            return "model"
        return other

    # Scores and measuring -----------------------------------------------------------------------------------------

    def scores(self, drawn: Sequence[Drawn]) -> Tensor:
        """[N] about 0…1, by the networks in training."""
        return self.forward.scores(drawn)

    def validate(self) -> dict[str, float]:
        """Agreement of the averaged weights on held-back pictures; the best so far are kept."""
        nets = copy.deepcopy(self.head.nets)
        for part in self.state.trained:
            nets.get_submodule(part).load_state_dict(self.state.averaged(part))
        rounded(nets)
        scores = self.forward.with_head(replace(self.head, nets=nets)).scores
        found = agreed(self.held(), self.values(self.held(), scores))
        if found["srcc"] >= self.state.notes["best"].get("srcc", -math.inf):
            self.state.notes["best"] = {**found, "step": self.state.step}
            self.state.frozen["best"].load_state_dict(nets.state_dict())
        self.note_validation(found)
        return {"srcc": found["srcc"]}

    def finish(self) -> tuple[DpHead, dict[str, Any]]:
        """Take the best weights, measure, write."""
        self.validate()
        best = self.state.frozen["best"]
        assert isinstance(best, DpNets)
        head = replace(self.head, nets=copy.deepcopy(best).cpu().eval())
        validation: dict[str, Any] = {**self.state.notes["best"], "steps": self.state.step}
        head = self._with_facts(head, validation)
        if self.world.main:
            save_dp_iqa(self.request.out, head)
        self.save()
        return head, validation

    def _with_facts(self, head: DpHead, validation: dict[str, Any]) -> DpHead:
        images = self.part.train[: self.request.validate_on]
        scores = self.forward.with_head(replace(head, nets=head.nets.to(self.device))).scores
        meta = replace(
            head.meta,
            settings={**head.settings.to_dict(), "training": self.request.told()},
            **self.facts(validation, self.values(images, scores)),
        )
        head.nets.cpu()
        return replace(head, meta=meta)


def _sizes_of(start: DpHead, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a head to begin from, which count where nothing else is asked for.

    Raises:
        BadInput: another size asked for the decoder, whose weights would be lost.
    """
    shape, decoder = start.nets.shape, start.nets.shape.decoder
    fixed = {name: getattr(decoder, name) for name in ("width", "kernel", "squeeze", "thin", "cells", "hidden")}
    for name, value in fixed.items():
        if asked.get(name, value) != value:
            remedy = "Leave it out, or train without a head to begin from."
            raise BadInput(f"{name} {value}, as the head to begin from has it", str(asked[name]), remedy)
    return fixed | {name: getattr(shape, name) for name in ("text_hidden", "image_width", "image_blocks")}
