"""Train a pixel-space restorer on pairs of a clean picture and its damaged form.

After DiffV2IQA's restorer (Wang et al., 2024, arXiv 2402.14401; SR3, Saharia et al., 2021, arXiv 2104.07636),
reimplemented, not by their authors: crops of 64 pixels, Adam, L1 on eps, continuous noise levels. Ours on top: our own
ladders of damage, a moving average of the weights, and runs that can be killed at any moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.similarity import psnr
from ..errors import BadInput
from ..files import sweep
from ..nets.restorer import RestorerNet, build
from ..restoration.schedule import FEWEST, draw_signals, inference_levels
from ..restoration.sr3 import Sr3Options, Sr3Restorer
from ..restoration.weights import RestorerFacts, save_restorer
from .descent import autocast, descend, rate_at
from .genziqa_world import Alone, World
from .ldm import state as states
from .ldm.loop import append, forget_after
from .ldm.pictures import step_generator
from .restorer_data import collection, held_back_pairs, names_digest, pairs
from .restorer_request import RestorerRequest
from .stepping import Watch, take_steps

_STAGE = "restorer"
#: Marks the draws of noise beside those of pairs.
_NOISE = 1_000_000


@dataclass(frozen=True, slots=True)
class RestorerResult:
    """What came out.

    Attributes:
        validation: PSNR of damaged and restored held-back pictures, in dB.
        step: Steps made in all.
        seconds_per_step: Of the steps of this call.
        parameters: Of the network.
        written: Whether all steps are made; the file is written at every end, of the average so far.
    """

    validation: dict[str, float]
    step: int
    seconds_per_step: float
    parameters: int
    written: bool


def train_restorer(
    request: RestorerRequest,
    watch: Watch | None = None,
    world: World | None = None,
    device: torch.device | str = "cpu",
) -> RestorerResult:
    """Train, measure on held-back pictures, write.

    Args:
        request: What to train.
        watch: Told of progress; may raise to stop.
        world: Several processes; alone when left out.
        device: To train on.

    Raises:
        BadInput: too few pictures, or a saved state of another request.
        UnreadableFile: a picture or the saved state cannot be read.
    """
    run = _Run(request, watch, world or Alone(), torch.device(device))
    run.begin()
    seconds = take_steps(run, request)
    validation = run.finish()
    count = sum(parameter.numel() for parameter in run.net.parameters())
    return RestorerResult(validation, run.state.step, seconds, count, run.state.step >= request.steps)


class _Run:
    """One run: the request, the state, and what is fixed between them."""

    def __init__(self, request: RestorerRequest, watch: Watch | None, world: World, device: torch.device) -> None:
        self.request, self.watch, self.world, self.device = request, watch, world, device
        if request.batch < world.size:
            raise BadInput(f"a batch of at least {world.size}, one pair a process", str(request.batch), "Raise it.")
        self.pictures = collection(request)
        self.net = build(request.shape, request.seed).to(device).eval()
        self.state = states.begin({"net": self.net}, {}, 0, 0.0)
        self.scaler = torch.amp.GradScaler(device.type, enabled=request.precision == "fp16")
        self.file, self.log = request.run / "state.safetensors", request.run / "log.jsonl"
        self.damaged, self.clean = held_back_pairs(self.pictures.held_back, request)

    def begin(self) -> None:
        """Go on from a saved state where there is one."""
        told = {"request": self.request.digest(), "pictures": names_digest(self.pictures)}
        for folder, name in ((self.request.run, self.file.name), (self.request.out.parent, self.request.out.name)):
            sweep(folder, name)
        if self.file.exists():
            states.restore(self.state, self.file)
            if any(self.state.notes.get(name) != value for name, value in told.items()):
                raise BadInput("a run of the same request", f"another one in {self.request.run}", "Name another run.")
            if self.state.notes.get("scaler"):
                self.scaler.load_state_dict(self.state.notes["scaler"])
            if self.world.main:
                forget_after(self.log, _STAGE, self.state.step)
            return
        self.state.notes = {**told}

    def save(self) -> None:
        """Write the state, from the first process only."""
        if self.world.main:
            self.state.notes["scaler"] = self.scaler.state_dict()
            states.save(self.state, self.file)

    def one_step(self) -> float:
        """Draw, forward, backward, clip, step; a step whose gradient is not finite is skipped."""
        request, state = self.request, self.state
        places = range(self.world.rank, request.batch, self.world.size)
        damaged, clean = pairs(self.pictures.train, request, state.step, places)
        condition, target = (2.0 * damaged - 1.0).to(self.device), (2.0 * clean - 1.0).to(self.device)
        noisy, signals, eps = self._noised(target, condition, places)
        wanted = eps if request.shape.predicts == "eps" else target - condition
        # Dropped channels are drawn by the step, so that a resumed run draws the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed * 1_000_003 + state.step)
            self.net.train()
            with autocast(request.precision, self.device):
                found = self.net(condition, noisy, signals)
            self.net.eval()
        loss = (F.l1_loss if request.loss == "l1" else F.mse_loss)(found.float(), wanted)
        self.scaler.scale(loss).backward()
        descend(state, self.world, self.scaler, request, rate_at(request, state.step, request.rise, request.falls))
        state.step += 1
        state.update_average(request.average)
        return float(loss.detach())

    def _noised(self, clean: Tensor, condition: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, its signal [n] and its noise; each pair's draw is its own, however many processes share a step."""
        request, first = self.request, inference_levels(FEWEST)[0].signal
        signals, noise, own = [], [], []
        for place in places:
            generator = step_generator(request.seed, self.state.step, _NOISE + place)
            pure, mine = (torch.rand(2, generator=generator) < torch.tensor([request.pure, request.own])).tolist()
            drawn = draw_signals(1, generator, highest_noise=request.highest_noise)
            signals.append(torch.tensor([first]) if pure else drawn)
            noise.append(torch.randn(clean.shape[1:], generator=generator))
            own.append(mine and not pure)
        signal, eps = torch.cat(signals).to(self.device), torch.stack(noise).to(self.device)
        shown = clean.clone()
        if any(own):
            with torch.no_grad():
                start = torch.full((sum(own),), first, device=self.device)
                shown[own] = self.net.clean(condition[own], eps[own], start).clamp(-1.0, 1.0)
        rows = signal.view(-1, 1, 1, 1)
        return rows * shown + (1.0 - rows**2).clamp_min(0.0).sqrt() * eps, signal, eps

    def averaged(self) -> RestorerNet:
        """The averaged weights, rounded as a file holds them."""
        net = build(self.request.shape, self.request.seed)
        net.load_state_dict({name: value.half().float().cpu() for name, value in self.state.averaged("net").items()})
        return net.to(self.device).eval().requires_grad_(False)

    def validate(self) -> dict[str, float]:
        """Mean PSNR in dB of held-back pictures, damaged and restored by the averaged weights."""
        restorer = Sr3Restorer(self.averaged(), Sr3Options(self.request.inference, self.request.eta))
        restored = restorer.restore(self.damaged.to(self.device))
        whole = [place for place, reason in enumerate(restored.reasons) if reason is None]
        before = psnr(self.damaged, self.clean)
        after = before.clone()
        after[whole] = psnr(restored.images[whole, 0].cpu(), self.clean[whole])
        found = {
            "psnr_damaged": float(before.mean()),
            "psnr_restored": float(after.mean()),
            "nearer": float((after > before).double().mean()),
        }
        if self.world.main:
            append(self.log, [{"stage": _STAGE, "step": self.state.step, **found}])
        return found

    def finish(self) -> dict[str, float]:
        """Measure and write what there is by now."""
        found = self.validate()
        if self.world.main:
            save_restorer(self.request.out, self.averaged(), self._facts(found))
        return found

    def _facts(self, found: dict[str, float]) -> RestorerFacts:
        request, part = self.request, self.pictures
        names = ("batch", "rate", "falls", "loss", "average", "untouched", "pure", "highest_noise", "own", "every")
        training: dict[str, Any] = {name: getattr(request, name) for name in (*names, "seed", "precision")}
        training |= {"step": self.state.step, "steps": request.steps, "kinds": list(request.kinds)}
        training |= {"pictures": len(part.train), "held_back": len(part.held_back), "side": request.shape.native}
        return RestorerFacts(request.shape, request.inference, request.eta, training, {**found, "n": len(self.clean)})
