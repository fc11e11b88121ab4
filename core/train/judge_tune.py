"""Fine-tune the judge, trunk and head, on ratings and on ladders of damage: validated by content, resumable.

It begins at the head that was fitted to frozen features of the same training part (``judge.py``), so that the held-back
pictures are new to all of it, and keeps the averaged weights of the best validation.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..benchmark.agreement import Agreement, agreement, paired, pearson, spearman
from ..benchmark.significance import Comparison, compare
from ..data.split import split_by_group
from ..errors import BadInput
from ..files import sweep
from ..images import load_image
from ..nets.judge import JudgeNetwork
from ..nets.judge_file import JudgeFacts, save
from .genziqa_world import Alone, World
from .judge import Material, gather, validation_head
from .judge_losses import ladder_loss, rated_loss
from .judge_reduce import reduced
from .judge_request import JudgeRequest
from .judge_rungs import factors, pairs
from .judge_sight import Sight, SightStore, Trunk, described, random_views, sight
from .judge_tune_data import Drawn, draw, pool
from .judge_tune_request import TuneRequest
from .ldm import state as states
from .ldm.loop import append, forget_after
from .stepping import Watch, take_steps

_log = logging.getLogger(__name__)
STAGE = "judge"
LOG = "log.jsonl"
_RISE = 50
#: Ladders of each family that a validation orders.
_MEASURED_LADDERS = 30


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What came out.

    Attributes:
        facts: What the written file says; ``None`` while minutes ran out before the last step.
        validation: Of the best averaged weights, on all held-back pictures; ``None`` likewise.
        gain: Over the head on frozen features that it began from, paired, over contents; ``None`` likewise.
        step: Steps made in all.
        seconds_per_step: Of this call.
    """

    facts: JudgeFacts | None
    validation: Agreement | None
    gain: Comparison | None
    step: int
    seconds_per_step: float


def tune_judge(request: TuneRequest, watch: Watch | None = None) -> TuneResult:
    """Train, validate, write.

    Raises:
        BadInput: too few pictures, no ladders, or a saved state of another request.
        UnreadableFile: a picture, the backbone or the saved state cannot be read.
        MissingDependency: scikit-learn is not installed.
    """
    run = TuneRun(request, watch)
    run.begin()
    seconds = take_steps(run, request)
    if run.state.step < request.steps:
        return TuneResult(None, None, None, run.state.step, seconds)
    facts, validation, gain = run.finish()
    return TuneResult(facts, validation, gain, run.state.step, seconds)


class TuneRun:
    """One run: the request, the state, and what is fixed between them."""

    def __init__(self, request: TuneRequest, watch: Watch | None = None) -> None:
        self.request, self.watch, self.device = request, watch, torch.device(request.device)
        self.world: World = Alone()
        sweep(request.run)
        self.found, self.held, kept, self.network = _beginning(request, watch)
        self.frozen_scores = _scores_of(self.network, self.found.described[self.held])
        self.network.to(self.device)
        self.pool = pool(request, kept, self.found.groups)
        self.deviation = float(self.found.mos[kept].std())
        self.factor = nn.Linear(self.network.head.width, 1).to(self.device)
        self.trunk = Trunk(self.network.backbone, request.place)
        folder = request.cache / "maps" if request.kept_maps else None
        self.store = SightStore(self.trunk, self.device, folder, self.found.cache.tag)
        self.state = self._fresh_state()
        self.file, self.log = request.run / "state.safetensors", request.run / LOG

    def _fresh_state(self) -> states.State:
        request, head = self.request, self.network.head.requires_grad_(True)
        trained: dict[str, nn.Module] = {**self.trunk.trained, "head": head, "factor": self.factor}
        for module in trained.values():
            module.requires_grad_(True)
        best = copy.deepcopy(self.network).requires_grad_(False)
        state = states.begin(trained, {"best": best}, 0, request.decay)
        fast = [weight for module in (head, self.factor) for weight in module.parameters()]
        slow = [weight for module in self.trunk.trained.values() for weight in module.parameters()]
        groups = [{"params": fast, "share": 1.0}, {"params": slow, "share": request.trunk_rate}]
        state.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), weight_decay=request.decay)
        return state

    def begin(self) -> None:
        """Go on from a saved state, or note what this one belongs to."""
        told = {"request": self.request.digest()}
        if not self.file.exists():
            self.state.notes = {**told, "best": {}}
            return
        states.restore(self.state, self.file)
        if self.state.notes.get("request") != told["request"]:
            raise BadInput("a run of the same request", f"another one in {self.request.run}", "Name another run.")
        forget_after(self.log, STAGE, self.state.step)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        states.save(self.state, self.file)

    # Steps --------------------------------------------------------------------------------------------------------

    def one_step(self) -> float:
        """Draw, look, forward, backward, clip, step; a step whose gradient is not finite is skipped."""
        request, state = self.request, self.state
        drawn = draw(self.pool, request, state.step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed * 1_000_003 + state.step)
            loss = self._loss(drawn)
        loss.backward()
        self._apply([parameter for _, parameter in state.names()])
        state.step += 1
        state.update_average(request.average)
        return float(loss.detach())

    def _loss(self, drawn: Drawn) -> Tensor:
        rungs = [rung for ladder in drawn.ladders for rung in ladder]
        scores, told = self._forward(self._looks(drawn))
        count, losses = len(drawn.rated), self.request.losses
        mos = self.found.mos[drawn.rated].to(scores)
        loss = rated_loss(scores[:count], mos, drawn.mates.to(scores.device), self.deviation, losses)
        if rungs and losses.ladders:
            better, worse, margins = pairs(drawn.ladders, count)
            margins = torch.tensor(margins).to(scores)
            loss = loss + losses.ladders * ladder_loss(scores[better], scores[worse], margins, self.deviation)
        if rungs and losses.factor:
            wanted = torch.tensor(factors(rungs)).to(scores)
            known = wanted.isfinite()
            if bool(known.any()):
                loss = loss + losses.factor * F.mse_loss(told[count:][known], wanted[known])
        return loss

    def _looks(self, drawn: Drawn) -> list[Sight]:
        """Views of the rated pictures, then of the rungs; rungs of one ladder are looked at in the same places."""
        request = self.request
        generator = np.random.default_rng([request.seed, 4, self.state.step])
        paths = [[request.data.images[place].path] for place in drawn.rated]
        paths += [[rung.path for rung in ladder] for ladder in drawn.ladders]
        found = []
        for together in paths:
            places = generator.random((request.crops, 2)).tolist()
            mirror = bool(generator.random() < 0.5)
            for path in together:
                if request.kept_maps:
                    whole = self.store.grid(path)
                    count = len(whole.crops)
                    found.append(whole.some(sorted({int(down * count) for down, _ in places})))
                else:
                    views = random_views(load_image(path), request.crops, request.side, places, mirror)
                    found.append(sight(self.trunk, *views, self.device))
        return found

    def _forward(self, looks: Sequence[Sight]) -> tuple[Tensor, Tensor]:
        """Views of n pictures → scores [n], and the hidden factors' logarithms [n]."""
        head, drop = self.network.head, self.request.drop
        with self.world.precision(self.request.precision, self.device):
            rows = described(self.trunk, looks).float()
        inner = F.dropout(F.gelu(head.inner(head.standardised(rows))), drop)
        return 100.0 * torch.sigmoid(head.out(inner)[:, 0]), self.factor(inner)[:, 0]

    def _apply(self, parameters: Sequence[Tensor]) -> None:
        state = self.state
        for group in state.optimiser.param_groups:
            group["lr"] = group["share"] * rate_at(self.request, state.step)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.request.clip)
        if bool(torch.isfinite(norm)):
            state.optimiser.step()
        else:
            _log.warning("The gradient of step %d was not finite; the step is skipped.", state.step)
        state.optimiser.zero_grad(set_to_none=True)

    # Measuring ----------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """The averaged weights on held-back pictures and ladders; the best so far are kept."""
        network = self.averaged()
        places = self.held[:: max(1, len(self.held) // self.request.validate_on)]
        found = _agreement(self._scores(network, places), self.found.mos[places].tolist())
        row = {**found, "ladders": self.ordered(network)}
        if found["srcc"] >= self.state.notes["best"].get("srcc", -math.inf):
            self.state.notes["best"] = {**row, "step": self.state.step}
            self.state.frozen["best"].load_state_dict(network.state_dict())
        append(self.log, [{"stage": STAGE, "step": self.state.step, **row}])
        return {"srcc": found["srcc"]}

    def averaged(self) -> JudgeNetwork:
        """A copy with the averaged weights."""
        network = copy.deepcopy(self.network).requires_grad_(False)
        trunk = Trunk(network.backbone, self.request.place)
        for name, module in {**trunk.trained, "head": network.head}.items():
            module.load_state_dict(self.state.averaged(name))
        return network

    @torch.inference_mode()
    def _scores(self, network: JudgeNetwork, places: Sequence[int]) -> list[float]:
        paths = [self.request.data.images[place].path for place in places]
        return [self._score(network, self.store.grid(path)) for path in paths]

    def _score(self, network: JudgeNetwork, look: Sight) -> float:
        return float(network.head(described(Trunk(network.backbone, self.request.place), [look])))

    @torch.inference_mode()
    def ordered(self, network: JudgeNetwork) -> dict[str, dict[str, float]]:
        """By family: in how many neighbouring rungs of held-back contents the score falls, and of how many."""
        told: dict[str, dict[str, float]] = {}
        for ladder in self.pool.held:
            count = told.setdefault(ladder[-1].family, {"ladders": 0, "fell": 0, "n": 0})
            if count["ladders"] < _MEASURED_LADDERS:
                scores = [self._score(network, self.store.grid(rung.path)) for rung in ladder]
                count["ladders"] += 1
                count["fell"] += sum(later < earlier for earlier, later in pairwise(scores))
                count["n"] += len(scores) - 1
        return told

    def finish(self) -> tuple[JudgeFacts, Agreement, Comparison]:
        """Take the best weights, measure them on every held-back picture, write."""
        self.validate()
        best = self.state.frozen["best"]
        assert isinstance(best, JudgeNetwork)
        mos, groups = self.found.mos[self.held].tolist(), [self.found.groups[place] for place in self.held]
        scores = self._scores(best, self.held)
        validation = agreement(scores, mos)
        gain = compare(scores, self.frozen_scores, mos, groups)
        facts = self._facts(best, validation, gain)
        save(self.request.out, copy.deepcopy(best).cpu(), facts)
        self.save()
        return facts, validation, gain

    def _facts(self, best: JudgeNetwork, validation: Agreement, gain: Comparison) -> JudgeFacts:
        request, kept = self.request, self.pool.kept
        some = kept[:: max(1, len(kept) // request.validate_on)]
        scores = torch.tensor(self._scores(best, some))
        tuned = {**request.told(), "best": self.state.notes["best"], "gain": gain.to_dict()}
        return JudgeFacts(
            width=best.head.width,
            rank=best.head.rank,
            format=2 if best.head.rank else 1,
            calibrated_on=request.calibrated_on,
            training_set=request.data.name,
            pictures=len(kept),
            centre=float(scores.mean()),
            spread=float(scores.std()),
            validation=validation.to_dict(),
            settings={"share": request.share, "split_seed": request.seed, "tuned": json.loads(json.dumps(tuned))},
        )


def _beginning(request: TuneRequest, watch: Watch | None) -> tuple[Material, list[int], list[int], JudgeNetwork]:
    """Frozen features, the places held back and kept, and a network whose head never saw the former."""
    tick = None if watch is None else (lambda what, done, total: watch(what, done, total, {}))
    frozen = JudgeRequest(
        request.data, request.out, request.cache, request.backbone, request.calibrated_on, request.share,
        request.per_group, request.settings, seed=request.seed,
    )  # fmt: skip
    found = gather(frozen, tick)
    head, held = validation_head(frozen, found, tick)
    kept = split_by_group(found.groups, request.share, request.seed)[0]
    if request.rank:
        head = reduced(head, found.described[kept], min(request.rank, head.width))
    network = JudgeNetwork(head.width, rank=head.rank)
    network.backbone, network.head = found.backbone, head
    return found, held, kept, network


@torch.inference_mode()
def _scores_of(network: JudgeNetwork, rows: Tensor) -> list[float]:
    return network.head(rows).tolist()


def _agreement(scores: list[float], mos: list[float]) -> dict[str, float]:
    """Correlations alone: intervals take longer than the scores of so few pictures."""
    if len(scores) < 3 or max(scores) == min(scores) or max(mos) == min(mos):
        return {"srcc": 0.0, "n": len(scores)}
    a, b = paired(scores, mos)
    return {"srcc": spearman(a, b), "plcc": pearson(a, b), "n": len(scores)}


def rate_at(request: TuneRequest, step: int) -> float:
    """Rising over the first steps, then half a cosine down to a twentieth."""
    rise = min(1.0, (step + 1) / _RISE)
    return request.rate * rise * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / request.steps))))
