"""Train a GenzIQA head: its context and its LoRA, nothing of the model.

After De, Mitra and Soundararajan, 2024 (arXiv 2406.04654), reimplemented, not by its authors: AdamW 1e-4, weight decay
1e-2, clip 1, squared error. Ours on top: gain and offset per data set, ranking and correlation losses, validation by
content, and runs that can be killed at any moment.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..backbone.fingerprint import Fingerprint
from ..errors import BadInput
from ..methods.genziqa_file import save_genziqa
from ..methods.genziqa_head import GenzHead, untrained
from ..methods.genziqa_settings import PUBLISHED
from . import genziqa_measure as measure
from .genziqa_data import Part, draw, split, split_digest
from .genziqa_forward import Adaptation, raw_values
from .genziqa_latents import Latents
from .genziqa_losses import batch_loss, ladder_loss
from .genziqa_measure import Readout
from .genziqa_request import GenzRequest
from .genziqa_result import GenzResult, with_facts
from .genziqa_world import Alone, World
from .ldm import state as states
from .ldm.loop import append, forget_after
from .stepping import Watch, take_steps

if TYPE_CHECKING:
    from ..backbone.adaptation import AdaptableBackbone

_log = logging.getLogger(__name__)
_STAGE = "genziqa"
#: Held-back pictures on which few levels are compared with the eight published ones.
_AGREE_ON = 50


def train_genziqa(
    request: GenzRequest, backbone: AdaptableBackbone, watch: Watch | None = None, world: World | None = None
) -> GenzResult:
    """Train, validate, calibrate, write.

    Args:
        request: What to train.
        backbone: A host whose forwards carry gradients, on the device to train on.
        watch: Told of progress.
        world: Several processes; alone when left out.

    Raises:
        BadInput: too few pictures, or a saved state of another request.
        UnreadableFile: a picture or the saved state cannot be read.
    """
    run = _Run(request, backbone, watch, world or Alone())
    run.begin()
    seconds = take_steps(run, request)
    if run.state.step < request.steps:
        return GenzResult(None, dict(run.state.notes.get("best", {})), run.state.step, seconds)
    head, validation = run.finish()
    return GenzResult(head, validation, run.state.step, seconds)


class _Run:
    """One run: the request, the state, and what is fixed between them."""

    def __init__(self, request: GenzRequest, backbone: AdaptableBackbone, watch: Watch | None, world: World) -> None:
        self.request, self.backbone, self.watch, self.world = request, backbone, watch, world
        self.parts: list[Part] = split(request)
        self.head = untrained(
            backbone, request.settings, words=request.words, context=request.context, rank=request.rank,
            seed=request.seed, padding_mask=request.padding_mask,
        )  # fmt: skip
        self.adaptation = Adaptation(self.head)
        # What is measured on is encoded in full precision, what is trained on in the run's.
        self.latents, self.encoded = Latents(backbone, request.settings), Latents(backbone, request.settings)
        if not sum(parameter.numel() for parameter in self.adaptation.parameters()):
            raise BadInput("a context or a LoRA to train", "neither", "Raise context or rank.")
        least = min(request.batch, *(len(part.train) for part in self.parts))
        if least < world.size:
            expected = f"a batch of at least {world.size} pictures, one for each process"
            raise BadInput(expected, str(least), "Raise the batch, or start fewer processes.")
        best = copy.deepcopy(self.adaptation).requires_grad_(False)
        self.state = states.begin({"adaptation": self.adaptation}, {"best": best}, 0, request.decay)
        self.file, self.log = request.run / "state.safetensors", request.run / "log.jsonl"

    # Beginning and saving -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Go on from a saved state, or read gain and offset of each set off the untrained head."""
        if self.file.exists():
            states.restore(self.state, self.file)
            self._same_run()
            if self.world.main:
                forget_after(self.log, _STAGE, self.state.step)
            return
        readouts = (
            [self._first(part) for part in self.parts] if self.request.readout else [self._fixed()] * len(self.parts)
        )
        self.state.notes = {
            "request": self.request.digest(), "split": split_digest(self.parts),
            "model": self.backbone.fingerprint.to_text(), "readouts": [asdict(found) for found in readouts], "best": {},
        }  # fmt: skip

    def _same_run(self) -> None:
        """Refuse a saved state of another request, split or model."""
        notes, where = self.state.notes, self.request.run
        wanted = {"request": self.request.digest(), "split": split_digest(self.parts)}
        other = next((name for name, told in wanted.items() if notes.get(name) != told), None)
        if other is None and not Fingerprint.from_text(notes["model"]).matches(self.backbone.fingerprint):
            other = "model"
        if other is not None:
            raise BadInput(f"a run of the same {other}", f"another one in {where}", "Name another run folder.")

    def _fixed(self) -> Readout:
        return Readout(self.request.settings.gain, self.request.settings.offset)

    def _first(self, part: Part) -> Readout:
        images = part.train[: self.request.calibrate_on]
        return measure.first_readout(measure.raw_of(self.latents, self.head, images, self._levels()), images)

    def _levels(self) -> Sequence[int]:
        """A few of the levels that training draws from."""
        return self.request.validate_levels if self.request.levels is None else self.request.levels[:2]

    def save(self) -> None:
        """Write the state, from the first process only."""
        if self.world.main:
            states.save(self.state, self.file)

    @property
    def readouts(self) -> list[Readout]:
        """Gain and offset of each set."""
        return [Readout(**told) for told in self.state.notes["readouts"]]

    # Steps --------------------------------------------------------------------------------------------------------

    def one_step(self) -> float:
        """Draw, forward, backward, clip, step; a step whose gradient is not finite is skipped."""
        request, state = self.request, self.state
        place, drawn = draw(self.parts, request, state.step)
        mine = drawn[self.world.rank :: self.world.size]
        readout, part = self.readouts[place], self.parts[place]
        with self.world.precision(request.precision, self.backbone.noise((1,), 0).device):
            raw = raw_values(self.encoded, self.adaptation.onto(self.head), mine).float()
        scores = self.world.whole(readout.offset + readout.gain * raw, len(drawn))
        rated = len(drawn) - 2 * request.ladders
        mos = torch.tensor([one.image.mos for one in drawn[:rated]])
        loss = batch_loss(scores[:rated], mos, part.deviation, request.losses)
        if request.ladders:
            loss = loss + request.ladder_weight * ladder_loss(scores[rated:] / part.deviation)
        # Gradients are averaged over processes, each of which holds those of its own rows: they must be summed.
        (loss * self.world.size).backward()
        parameters = [parameter for _, parameter in state.names()]
        self.world.mean_gradients(parameters)
        self._apply(parameters)
        state.step += 1
        state.update_average(0.99)
        return float(loss.detach())

    def _apply(self, parameters: Sequence[Tensor]) -> None:
        for group in self.state.optimiser.param_groups:
            group["lr"] = self.request.rate
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.request.clip)
        if bool(torch.isfinite(norm)):
            self.state.optimiser.step()
        else:
            _log.warning("The gradient of step %d was not finite; the step is skipped.", self.state.step)
        self.state.optimiser.zero_grad(set_to_none=True)

    # Measuring ----------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Agreement on held-back pictures of the first set; the best parameters so far are kept."""
        request, images = self.request, self.parts[0].held[: self.request.validate_on]
        module = copy.deepcopy(self.adaptation)
        module.load_state_dict(self.state.averaged("adaptation"))
        raw = measure.raw_of(self.latents, module.onto(self.head), images, request.validate_levels)
        found = measure.held_back(raw, images, self.readouts[0])
        if found["srcc"] >= self.state.notes["best"].get("srcc", -math.inf):
            self.state.notes["best"] = {**found, "step": self.state.step}
            self.state.frozen["best"].load_state_dict(module.state_dict())
        if self.world.main:
            append(self.log, [{"stage": _STAGE, "step": self.state.step, **found}])
        return {"srcc": found["srcc"]}

    def finish(self) -> tuple[GenzHead, dict[str, Any]]:
        """Take the best parameters, read gain and offset off them, measure, write."""
        self.validate()
        best, request = self.state.frozen["best"], self.request
        assert isinstance(best, Adaptation)
        if request.half:
            best = copy.deepcopy(best).half().float()
        head, part = best.onto(self.head), self.parts[0]
        images, unseen = part.train[: request.calibrate_on], part.unseen[: request.validate_on]
        readout, steps = self.readouts[0], sorted({*PUBLISHED, *request.settings.timesteps})
        levels = measure.raw_levels(self.latents, head, images, steps)
        raw = levels[:, [steps.index(step) for step in request.settings.timesteps]].mean(1)
        others = []
        if request.readout:
            readout = measure.last_readout(raw.tolist(), images, readout)
            others = measure.readouts_of(levels, steps, images, readout)
        validation: dict[str, Any] = measure.held_back(
            measure.raw_of(self.latents, head, unseen, request.settings.timesteps), unseen, readout
        )
        validation |= measure.levels_agree(self.latents, head, unseen[:_AGREE_ON])
        validation |= {"step": self.state.notes["best"]["step"], "steps": self.state.step}
        head = with_facts(head, request, self.parts, validation, readout, raw, others)
        if self.world.main:
            save_genziqa(request.out, head, half=request.half)
        self.save()
        return head, validation
