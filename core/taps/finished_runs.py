"""What a probe keeps of finished samplings: small features by noise level, found again by the latent that came out.

A probe sees the forwards that sampling makes anyway. Which sampling a latent came from is told by its content: every
row of a sampler's result is hashed, so that order, batches, cached samplers and several samplers on one model need no
bookkeeping of anybody else. Old runs are dropped when the memory bound is reached.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch

from ..errors import BadInput
from .recorder import Record, Recorder

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone.contracts import Tap

COND, UNCOND = "cond", "uncond"

#: Which features: the level's place in the plan, and the branch.
Place: TypeAlias = "tuple[int, str]"

#: Latents may be cast once between the sampler and whoever asks.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_FORGOTTEN = 4096


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What to record.

    Attributes:
        taps: Feature taps, in forward order.
        sigmas: The noise levels, as sigmas in the host-independent convention.
        within: A forward stands for a level when its sigma is at most this factor away; the nearest one counts.
        most_bytes: Features kept in all; the newest run always stays.
    """

    taps: tuple[Tap, ...]
    sigmas: tuple[float, ...]
    within: float = 2.0
    most_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if not self.taps or any(tap.kind != "feature" for tap in self.taps):
            raise BadInput("feature taps", str([tap.name for tap in self.taps]), "Take them from the model's family.")
        if not self.sigmas or not all(math.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            raise BadInput("noise levels above 0", str(self.sigmas), "Give at least one.")
        if not self.within > 1.0:
            raise BadInput("a factor above 1", str(self.within), "The default is 2.")

    @property
    def length(self) -> int:
        """Values of one level and branch: mean and deviation of every channel of every tap."""
        return sum(2 * tap.channels for tap in self.taps)

    def distance(self, level: int, sigma: float) -> float | None:
        """How far a forward's sigma is from a level, in logarithms; ``None`` when it cannot stand for it."""
        if not sigma > 0.0:
            return None
        distance = abs(math.log(sigma / self.sigmas[level]))
        return distance if distance <= math.log(self.within) * (1.0 + 1e-6) else None


class FirstOfEach(Recorder):
    """A recorder in which the first value of a key stays: guidance that asks again, with changes, comes later."""

    __slots__ = ()

    def put(self, record: Record) -> None:
        """Store one record, unless its place is taken."""
        self.records.setdefault(record.key, record)


@dataclass(slots=True)
class Run:
    """One sampling.

    Attributes:
        rows: Images of the batch.
        visited: Sigma of every call of the denoiser, in order.
        features: [rows, D] by level and branch, on the CPU once the run is over.
        used: The sigma whose forward stands for each level.
        missed: Levels whose forward came but held not all taps.
        text: A digest of the positive conditions, so that runs of one prompt are known.
        number: Counts up, 1 is the first.
    """

    rows: int
    text: str = ""
    number: int = 0
    visited: list[float] = field(default_factory=list)
    features: dict[Place, Tensor] = field(default_factory=dict)
    used: dict[int, float] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)

    def wanted(self, plan: ProbePlan, sigma: float) -> list[int]:
        """The levels that a forward at this sigma would serve at least as well as what is there."""
        self.visited.append(sigma)
        found = []
        for level in range(len(plan.sigmas)):
            distance = plan.distance(level, sigma)
            there = None if level not in self.used else plan.distance(level, self.used[level])
            if distance is not None and (there is None or distance <= there):
                found.append(level)
        return found

    def take(self, plan: ProbePlan, levels: Sequence[int], sigma: float, recorder: Recorder) -> None:
        """Keep what one call of the denoiser left in a recorder, if it is whole."""
        whole = {}
        for branch in (COND, UNCOND):
            values = _joined(recorder, plan.taps, branch, self.rows)
            if values is not None:
                whole[branch] = values
        if COND not in whole:
            self.missed.update(levels)
            return
        for level in levels:
            for branch in (COND, UNCOND):
                self.features.pop((level, branch), None)
            self.features.update({(level, branch): values for branch, values in whole.items()})
            self.used[level] = sigma
            self.missed.discard(level)

    def bytes(self) -> int:
        """Memory of the features."""
        storages = {values.data_ptr(): values.nbytes for values in self.features.values()}
        return sum(storages.values())

    def settle(self) -> None:
        """Move the features to the CPU, once the run is over."""
        moved: dict[int, Tensor] = {}
        for place, values in self.features.items():
            self.features[place] = moved.setdefault(id(values), values.detach().to("cpu", torch.float32))


@dataclass(frozen=True, slots=True)
class Finished:
    """One row of a finished run: what is known of the latent that came out of it."""

    run: Run
    row: int

    def features(self, plan: ProbePlan, branches: Iterable[str] = (COND,)) -> Tensor | str:
        """All levels after each other, each with its branches [levels · branches · D], or why they are not there."""
        parts = []
        for level in range(len(plan.sigmas)):
            for branch in branches:
                values = self.run.features.get((level, branch))
                if values is None:
                    return self._why(plan, level, branch)
                parts.append(values[self.row])
        return torch.cat(parts)

    def _why(self, plan: ProbePlan, level: int, branch: str) -> str:
        sigma = plan.sigmas[level]
        near = [s for s in self.run.visited if plan.distance(level, s) is not None]
        if not near:
            visited = ", ".join(f"{s:.3g}" for s in dict.fromkeys(self.run.visited)) or "none"
            return (
                f"sampling never came near sigma {sigma:.3g}, which the probe wants (it visited {visited}): "
                "sample with more steps, or set other levels on Probe Model and fit a head for them"
            )
        if branch == UNCOND and (level, COND) in self.run.features:
            return "the head wants the negative prompt's forwards, and sampling made none (cfg 1)"
        return (
            f"sampling passed sigma {sigma:.3g} without computing every block, as step-caching, block-skipping or "
            "compiling packs do: put such a node behind no probe, or let it begin later"
        )


class FinishedRuns:
    """The runs of one probe, oldest first, bounded in memory."""

    def __init__(self, plan: ProbePlan) -> None:
        self.plan = plan
        self._rows: OrderedDict[bytes, Finished] = OrderedDict()
        self._runs: OrderedDict[int, Run] = OrderedDict()
        self._forgotten: deque[bytes] = deque(maxlen=_MOST_FORGOTTEN)
        self._count = 0

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run, latents: Tensor) -> None:
        """Remember a run by the latents [rows, …] that came out of it."""
        if len(latents) != run.rows:
            return
        run.settle()
        self._count += 1
        run.number = self._count
        self._runs[run.number] = run
        for row, latent in enumerate(latents.detach().cpu()):
            for dtype in _DTYPES:
                self._rows[digest(latent.to(dtype))] = Finished(run, row)
        while len(self._runs) > 1 and self.bytes() > self.plan.most_bytes:
            self._drop(next(iter(self._runs)))

    def find(self, latents: Tensor) -> list[Finished | str]:
        """For each latent [N, …] the run that it came from, or why none is known."""
        return [self._find(digest(latent)) for latent in latents.detach().cpu()]

    def bytes(self) -> int:
        """Memory of all features."""
        return sum(run.bytes() for run in self._runs.values())

    def _find(self, key: bytes) -> Finished | str:
        found = self._rows.get(key)
        if found is not None:
            return found
        if key in self._forgotten:
            return "the probe has dropped this run to bound its memory: score each run before the next ones are sampled"
        if not self._count:
            return (
                "nothing was sampled with this probe: connect Probe Model's MODEL to the sampler. If it is connected, "
                "the sampler's result came out of a cache and the probe did not; change the seed to sample again"
            )
        return (
            f"this latent is not what any of the probe's {len(self)} samplings gave: connect the sampler's own LATENT, "
            "before anything changes or upscales it, and the Probe Model in front of that very sampler"
        )

    def _drop(self, number: int) -> None:
        run = self._runs.pop(number)
        for key in [key for key, found in self._rows.items() if found.run is run]:
            del self._rows[key]
            self._forgotten.append(key)


def digest(latent: Tensor) -> bytes:
    """A hash of one latent's shape, dtype and bytes."""
    values = latent.detach().cpu().contiguous()
    found = hashlib.blake2b(f"{tuple(values.shape)} {values.dtype}".encode(), digest_size=16)
    found.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return found.digest()


def _joined(recorder: Recorder, taps: Sequence[Tap], branch: str, rows: int) -> Tensor | None:
    """All taps of one branch side by side [rows, D]; ``None`` unless every tap fired for every row.

    A branch of several conditions (areas, combined prompts) is their mean.
    """
    by_tap: dict[str, dict[str, dict[int, Tensor]]] = {}
    for record in recorder:
        name, _, part = record.key.branch.partition("/")
        if name == branch:
            by_tap.setdefault(record.key.tap, {}).setdefault(part, {})[record.key.row] = record.value
    columns = []
    for tap in taps:
        parts = [_stacked(values, rows) for values in by_tap.get(tap.name, {}).values()]
        whole = [part for part in parts if part is not None]
        if not whole or len(whole) < len(parts):
            return None
        columns.append(torch.stack(whole).mean(0) if len(whole) > 1 else whole[0])
    return torch.cat(columns, dim=1)


def _stacked(values: Mapping[int, Tensor], rows: int) -> Tensor | None:
    return torch.stack([values[row] for row in range(rows)]) if len(values) == rows else None
