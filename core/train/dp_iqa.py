"""Train a DP-IQA head: adapters and decoder, nothing of the model.

After the facts of DP-IQA (2024, arXiv 2405.19996), reimplemented, not by its authors: squared error on MOS / 100, and
the margin ranking of the paper's figure. Ours on top: the model stays frozen, features that no adapter changes are
computed once, a moving average of the weights, validation by content, and runs that can be killed at any moment.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..backbone.fingerprint import Fingerprint
from ..benchmark.agreement import agreement
from ..errors import BadInput
from ..methods.dp_iqa_file import load_dp_iqa, rounded, save_dp_iqa
from ..methods.dp_iqa_head import DpHead, DpNets, fitting_shape, grown, untrained
from ..methods.dp_iqa_reader import MapReader
from ..methods.dp_iqa_text import text_sequence
from .descent import autocast, descend
from .dp_iqa_data import Drawn, draw, split
from .dp_iqa_forward import Forward
from .dp_iqa_maps import MapCache
from .dp_iqa_request import DpRequest
from .features import content_of
from .genziqa_data import split_digest
from .genziqa_losses import batch_loss
from .genziqa_world import Alone, World
from .ldm import state as states
from .ldm.loop import append, forget_after
from .stepping import Watch, take_steps

if TYPE_CHECKING:
    from ..backbone.residuals import ResidualBackbone

_log = logging.getLogger(__name__)
_STAGE = "dp_iqa"
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


class _Run:
    """One run: the request, the state, and what is fixed between them."""

    def __init__(self, request: DpRequest, backbone: ResidualBackbone, watch: Watch | None, world: World) -> None:
        self.request, self.backbone, self.watch, self.world = request, backbone, watch, world
        self.part = split(request)
        self.sequence = text_sequence(backbone, request.settings.text, request.run / "text")
        self.head = self._first_head()
        self.device = backbone.noise((1,), 0).device
        nets = self.head.nets.requires_grad_(True).to(self.device)
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
        least = min(request.batch, len(self.part.train))
        if least < self.world.size:
            expected = f"a batch of at least {self.world.size} pictures, one for each process"
            raise BadInput(expected, str(least), "Raise the batch, or start fewer processes.")
        best = copy.deepcopy(nets).requires_grad_(False)
        frozen: dict[str, nn.Module] = {"best": best}
        if "QFD" not in trained:
            frozen["QFD"] = nets.QFD
        self.state = states.begin(trained, frozen, 0, request.decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=request.precision == "fp16")
        self.file, self.log = request.run / "state.safetensors", request.run / "log.jsonl"

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

    # Beginning and saving -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Features where they can be kept, then go on from a saved state, or set the decoder's scale."""
        if self.forward.cache is not None:
            paths = [image.path for image in (*self.part.held, *self.part.train)]
            self.forward.cache.extract(paths, self._tell("features"))
        if self.file.exists():
            states.restore(self.state, self.file)
            self._same_run()
            if self.state.notes.get("scaler"):
                self.scaler.load_state_dict(self.state.notes["scaler"])
            if self.world.main:
                forget_after(self.log, _STAGE, self.state.step)
            return
        if self.request.start is None:
            images = self.part.train[:_STANDARDISE_ON]
            means, deviations = self.forward.statistics([Drawn(image, False) for image in images])
            self.head.nets.QFD.standardise(means, deviations)
            best = self.state.frozen["best"]
            assert isinstance(best, DpNets)
            best.QFD.standardise(means, deviations)
            self._centre_output()
        self.state.notes = {**self._told(), "model": self.backbone.fingerprint.to_text(), "best": {}}

    def _told(self) -> dict[str, Any]:
        """What a saved state must have in common with this run, word for word."""
        start = self.request.start
        return {
            "request": self.request.digest(),
            "split": split_digest([self.part]),
            "model's parts": dict(self.backbone.identity),
            "start": None if start is None else content_of(start),
        }

    def _same_run(self) -> None:
        """Refuse a saved state of another request, split, model or start."""
        notes = self.state.notes
        other = next((name for name, told in self._told().items() if notes.get(name) != told), None)
        if other is None and not Fingerprint.from_text(notes["model"]).matches(self.backbone.fingerprint):
            other = "model"
        if other is not None:
            raise BadInput(f"a run of the same {other}", f"another one in {self.request.run}", "Name another run.")

    def _centre_output(self) -> None:
        """Begin at the mean rating."""
        mean = sum(image.mos for image in self.part.train) / len(self.part.train) / 100.0
        with torch.no_grad():
            self.head.nets.QFD.fc3.bias.fill_(mean)
        for name, parameter in self.state.names():
            self.state.average[name] = parameter.detach().clone()

    def _tell(self, what: str) -> Callable[[int, int], None] | None:
        watch = self.watch
        return None if watch is None else lambda done, total: watch(what, done, total, {})

    def save(self) -> None:
        """Write the state, from the first process only."""
        if self.world.main:
            self.state.notes["scaler"] = self.scaler.state_dict()
            states.save(self.state, self.file)

    # Steps --------------------------------------------------------------------------------------------------------

    def one_step(self) -> float:
        """Draw, forward, backward, clip, step; a step whose gradient is not finite is skipped."""
        request, state = self.request, self.state
        drawn = draw(self.part, request, state.step)
        mine = drawn[self.world.rank :: self.world.size]
        # Dropped places are drawn by the step, so that a resumed run draws the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed * 1_000_003 + state.step)
            self.head.nets.train()
            with autocast(request.precision, self.device):
                mine_scored = self.forward.scores(mine)
            self.head.nets.eval()
        scores = self.world.whole(100.0 * mine_scored.float(), len(drawn))
        mos = torch.tensor([one.image.mos for one in drawn], device=self.device)
        loss = batch_loss(scores, mos, self.part.deviation, request.losses)
        # Gradients are averaged over processes, each of which holds those of its own rows: they must be summed.
        self.scaler.scale(loss * self.world.size).backward()
        descend(state, self.world, self.scaler, request)
        state.step += 1
        state.update_average(request.average)
        return float(loss.detach())

    # Measuring ----------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Agreement of the averaged weights on held-back pictures; the best so far are kept."""
        nets = copy.deepcopy(self.head.nets)
        for part in self.state.trained:
            nets.get_submodule(part).load_state_dict(self.state.averaged(part))
        rounded(nets)
        found = self._measured(replace(self.head, nets=nets))
        if found["srcc"] >= self.state.notes["best"].get("srcc", -math.inf):
            self.state.notes["best"] = {**found, "step": self.state.step}
            self.state.frozen["best"].load_state_dict(nets.state_dict())
        if self.world.main:
            append(self.log, [{"stage": _STAGE, "step": self.state.step, **found}])
        return {"srcc": found["srcc"]}

    def _measured(self, head: DpHead) -> dict[str, float]:
        images = self.part.held[: self.request.validate_on]
        scores, mos = self._scores(head, images), [image.mos for image in images]
        if len(scores) < 3 or max(scores) == min(scores):
            return {"srcc": 0.0, "n": len(scores)}
        return agreement(scores, mos).to_dict()

    def _scores(self, head: DpHead, images: Sequence[Any]) -> list[float]:
        forward = self.forward.with_head(head)
        found: list[float] = []
        with torch.no_grad():
            for first in range(0, len(images), self.request.rows):
                part = [Drawn(image, False) for image in images[first : first + self.request.rows]]
                found += (100.0 * forward.scores(part)).clamp(0.0, 100.0).tolist()
        return found

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
        request, images = self.request, self.part.train[: self.request.validate_on]
        scores = torch.tensor(self._scores(replace(head, nets=head.nets.to(self.device)), images))
        names = ("steps", "batch", "rate", "decay", "drop", "average", "flip", "share", "limit", "seed", "precision")
        told = {name: getattr(request, name) for name in names} | {"losses": asdict(request.losses)}
        meta = replace(
            head.meta,
            training_set=self.part.name,
            pictures=len(self.part.train),
            calibrated_on=request.calibrated_on,
            scale=(0.0, 100.0),
            centre=float(scores.mean()),
            spread=max(1e-3, float(scores.std())),
            validation=json.loads(json.dumps(validation)),
            settings={**head.settings.to_dict(), "training": told},
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
