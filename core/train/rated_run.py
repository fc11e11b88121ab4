"""A training of a head on one rated set: resuming, a step over all processes, agreement, what the file says of it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..benchmark.agreement import agreement
from ..errors import BadInput
from .descent import autocast, descend
from .dp_iqa_data import Drawn, draw
from .genziqa_data import Part, split_digest
from .genziqa_losses import batch_loss
from .genziqa_world import World
from .ldm import state as states
from .ldm.loop import append, forget_after
from .rated_request import RatedRequest
from .stepping import Watch

if TYPE_CHECKING:
    from ..data.rated import RatedImage


class RatedRun(ABC):
    """What is fixed between the steps of a run, and the step itself; a :class:`~.stepping.Run`.

    Args:
        request: What to train.
        part: Its pictures.
        network: What learns, in evaluation mode between steps.
        state: Of the optimiser.
        watch: Told of progress; may raise to stop.
        world: The processes that train together.
        device: To train on.
    """

    #: In the log.
    stage = "head"

    def __init__(
        self,
        request: RatedRequest,
        part: Part,
        network: nn.Module,
        state: states.State,
        watch: Watch | None,
        world: World,
        device: torch.device,
    ) -> None:
        self.part, self.network, self.state = part, network, state
        self.watch, self.world, self.device = watch, world, device
        self._request = request
        self.scaler = torch.amp.GradScaler(device.type, enabled=request.precision == "fp16")
        self.file, self.log = request.run / "state.safetensors", request.run / "log.jsonl"

    @abstractmethod
    def scores(self, drawn: Sequence[Drawn]) -> Tensor:
        """[N] about 0…1, with gradients, by the network as it is."""

    @abstractmethod
    def told(self) -> dict[str, Any]:
        """What a saved state must have in common with this run, word for word, beside request and split."""

    def notes(self) -> dict[str, Any]:
        """Likewise, all of it."""
        return {"request": self._request.digest(), "split": split_digest([self.part]), **self.told()}

    def tell(self, what: str) -> Callable[[int, int], None] | None:
        """The watch of a piece of work before the steps."""
        watch = self.watch
        return None if watch is None else lambda done, total: watch(what, done, total, {})

    # Beginning and saving -----------------------------------------------------------------------------------------

    def resumed(self) -> bool:
        """Go on from the saved state; whether there is one.

        Raises:
            BadInput: it is another run's.
            UnreadableFile: it cannot be read.
        """
        if not self.file.exists():
            return False
        states.restore(self.state, self.file)
        other = self.differs(self.state.notes)
        if other is not None:
            remedy = "Name another run, or say what that run was begun with."
            raise BadInput(f"a run of the same {other}", f"another one in {self._request.run}", remedy)
        if self.state.notes.get("scaler"):
            self.scaler.load_state_dict(self.state.notes["scaler"])
        if self.world.main:
            forget_after(self.log, self.stage, self.state.step)
        return True

    def differs(self, notes: Mapping[str, Any]) -> str | None:
        """What of a saved state is another run's."""
        return next((name for name, told in self.notes().items() if notes.get(name) != told), None)

    def begin_average(self) -> None:
        """Let the moving average begin at the weights as they are now."""
        for name, parameter in self.state.names():
            self.state.average[name] = parameter.detach().clone()

    def mean_rating(self) -> float:
        """Of the pictures to train on, 0…1."""
        return sum(image.mos for image in self.part.train) / len(self.part.train) / 100.0

    def save(self) -> None:
        """Write the state, from the first process only."""
        if self.world.main:
            self.state.notes["scaler"] = self.scaler.state_dict()
            states.save(self.state, self.file)

    # Steps --------------------------------------------------------------------------------------------------------

    def one_step(self) -> float:
        """Draw, forward, backward, clip, step; a step whose gradient is not finite is skipped."""
        request, state = self._request, self.state
        drawn = draw(self.part, request, state.step)
        mine = drawn[self.world.rank :: self.world.size]
        # Dropped places are drawn by the step, so that a resumed run draws the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed * 1_000_003 + state.step)
            self.network.train()
            with autocast(request.precision, self.device):
                mine_scored = self.scores(mine)
            self.network.eval()
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

    def held(self) -> tuple[RatedImage, ...]:
        """The pictures to validate on."""
        return self.part.held[: self._request.validate_on]

    @torch.no_grad()
    def values(
        self, images: Sequence[RatedImage], scores: Callable[[Sequence[Drawn]], Tensor] | None = None
    ) -> list[float]:
        """0…100 of pictures as they are, by the network in training or by another's ``scores``."""
        found: list[float] = []
        rows = self._request.rows
        for first in range(0, len(images), rows):
            part = [Drawn(image, False) for image in images[first : first + rows]]
            found += (100.0 * (scores or self.scores)(part)).clamp(0.0, 100.0).tolist()
        return found

    def note_validation(self, found: Mapping[str, float]) -> None:
        """Into the log, once for each step."""
        if self.world.main:
            forget_after(self.log, self.stage, self.state.step - 1)
            append(self.log, [{"stage": self.stage, "step": self.state.step, **found}])

    def facts(self, validation: Mapping[str, Any], of_training: Sequence[float]) -> dict[str, Any]:
        """Fields of the head's :class:`~..heads.head.HeadMeta` that every such training fills alike.

        Args:
            validation: Agreement on held-back pictures.
            of_training: Scores of pictures that it was trained on, which give centre and spread.
        """
        scores = torch.tensor(of_training)
        return {
            "training_set": self.part.name,
            "pictures": len(self.part.train),
            "calibrated_on": self._request.calibrated_on,
            "scale": (0.0, 100.0),
            "centre": float(scores.mean()),
            "spread": max(1e-3, float(scores.std())),
            "validation": json.loads(json.dumps(validation)),
        }


def agreed(images: Sequence[RatedImage], scores: Sequence[float]) -> dict[str, Any]:
    """Agreement with people, as plain types; SRCC 0 where it has no meaning."""
    if len(scores) < 3 or max(scores) == min(scores):
        return {"srcc": 0.0, "n": len(scores)}
    return agreement(scores, [image.mos for image in images]).to_dict()
