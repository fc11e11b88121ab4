"""Train a DiffV2IQA head: its two branches, and a ViT of its own where that is asked for.

After the facts of Wang et al., 2024 (arXiv 2402.14401), reimplemented, not by its authors: squared error on MOS / 100.
Ours on top: restorations and frozen backbones' features are computed once, a moving average of the weights, validation
by content, nothing chosen by it, and runs that can be killed at any moment.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..benchmark.agreement import agreement
from ..errors import BadInput
from ..files import sweep
from ..methods.diff_v2_iqa_eyes import Eyes, load_eyes
from ..methods.diff_v2_iqa_file import rounded, save_diff_v2
from ..methods.diff_v2_iqa_head import DiffHead, identity_of, untrained
from ..methods.diff_v2_iqa_reading import Reading
from ..nets.diff_v2 import DiffV2Nets
from ..nets.diff_v2_vit import VisionTransformer
from .descent import autocast, descend
from .diff_v2_cache import SeenCache
from .diff_v2_request import DiffRequest
from .dp_iqa_data import Drawn, draw, split
from .genziqa_data import Part, split_digest
from .genziqa_losses import batch_loss
from .genziqa_world import Alone, World
from .ldm import state as states
from .ldm.loop import append, forget_after
from .stepping import Watch, take_steps

if TYPE_CHECKING:
    from ..data.rated import RatedImage
    from ..restoration.contract import Restorer

_STAGE = "diff_v2"
#: Pictures behind the first centre and scale of the features.
_STANDARDISE_ON = 200


@dataclass(frozen=True, slots=True)
class DiffResult:
    """What came out.

    Attributes:
        head: As written; ``None`` while minutes ran out before the last step.
        validation: Its agreement with people on the held-back pictures.
        step: Steps made in all.
        seconds_per_step: Of the steps of this call.
        held_back: Name, score and rating of each picture that it was validated on.
    """

    head: DiffHead | None
    validation: dict[str, Any]
    step: int
    seconds_per_step: float
    held_back: tuple[tuple[str, float, float], ...] = ()


def train_diff_v2(
    request: DiffRequest,
    restorer: Restorer,
    watch: Watch | None = None,
    world: World | None = None,
    device: torch.device | str = "cpu",
) -> DiffResult:
    """Restore, read, train, validate, write.

    Args:
        request: What to train.
        restorer: On the device.
        watch: Told of progress; may raise to stop.
        world: Several processes; alone when left out.
        device: To train on.

    Raises:
        BadInput: too few pictures, or a saved state of another request.
        UnreadableFile: a picture, a backbone's weights or the saved state cannot be read.
    """
    run = _Run(request, restorer, watch, world or Alone(), torch.device(device))
    run.begin()
    seconds = take_steps(run, request)
    if run.state.step < request.steps:
        return DiffResult(None, {}, run.state.step, seconds)
    head, held_back = run.finish()
    return DiffResult(head, dict(head.meta.validation), run.state.step, seconds, held_back)


class _Run:
    """One run: the request, the state, and what is fixed between them."""

    def __init__(
        self, request: DiffRequest, restorer: Restorer, watch: Watch | None, world: World, device: torch.device
    ) -> None:
        self.request, self.watch, self.world, self.device = request, watch, world, device
        shape = request.shape
        own = {"seed": request.seed, "own_vit": request.own_vit}
        self.head = untrained(request.settings, shape, restorer=restorer, **own)
        branch = self.head.nets.shape.branch
        self.eyes: Eyes = load_eyes(request.settings, request.files, self.head.vit, branch=branch)
        self.identity = {name: told for name, told in self.eyes.identity.items() if not (name == "vit" and self.own)}
        self.eyes.network.to(device)
        self.reading = Reading(restorer, self.eyes.network, request.settings, device, request.rows)
        what = "restorations" if self.own else request.cache
        shared = request.shared or request.run
        self.cache = SeenCache(shared / "cache", self.reading, self.identity, what)
        self.modules = nn.ModuleDict({"nets": self.head.nets})
        if self.head.vit is not None:
            self.modules["vit"] = self.head.vit
        self.modules.requires_grad_(True).to(device)
        for module in self.modules.modules():
            if isinstance(module, nn.Dropout):
                module.p = request.drop
        self.state = states.begin({"head": self.modules}, {}, 0, request.decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=request.precision == "fp16")
        self.file, self.log = request.run / "state.safetensors", request.run / "log.jsonl"
        self.part: Part = split(replace(request, run=shared))

    @property
    def own(self) -> bool:
        """Whether a ViT is trained too."""
        return self.head.vit is not None

    # Beginning and saving -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Restore what is not in the cache, then go on from a saved state, or set the features' scale."""
        sweep(self.request.run, self.file.name)
        self._extract()
        told = {
            "request": self.request.digest(),
            "split": split_digest([self.part]),
            "restorer": json.dumps(identity_of(self.reading.restorer, self.identity), sort_keys=True),
        }
        if self.file.exists():
            states.restore(self.state, self.file)
            if any(self.state.notes.get(name) != value for name, value in told.items()):
                raise BadInput("a run of the same request", f"another one in {self.request.run}", "Name another run.")
            if self.world.main:
                forget_after(self.log, _STAGE, self.state.step)
            return
        self._standardise()
        self.head.nets.begin_at(sum(image.mos for image in self.part.train) / len(self.part.train) / 100.0)
        for name, parameter in self.state.names():
            self.state.average[name] = parameter.detach().clone()
        self.state.notes = {**told}

    def _extract(self) -> None:
        """Every process restores its share, then all look whether the files are there."""
        sides = (self.part.held, self.part.train)
        paths = [image.path for side in sides for image in side]
        mine = paths[self.world.rank :: self.world.size]
        self.cache.extract(mine, self._tell("restorations"))
        self.world.first(True)  # waits for the others
        unusable = set(self.cache.extract(paths))
        train, held = (tuple(image for image in side if image.path not in unusable) for side in sides[::-1])
        if min(len(train), len(held)) < 2:
            raise BadInput("pictures that can be restored", str(len(train) + len(held)), "See the log for the reasons.")
        self.part = replace(self.part, train=train, held=held)

    def _tell(self, what: str) -> Callable[[int, int], None] | None:
        watch = self.watch
        return None if watch is None else lambda done, total: watch(what, done, total, {})

    @torch.no_grad()
    def _standardise(self) -> None:
        """Means and deviations of the input's map channels, and of all four vectors."""
        count, maps, vectors = sum(self.request.settings.maps), [], []
        for image in self.part.train[:_STANDARDISE_ON]:
            found, vector = self._features([Drawn(image, False)])[1:]
            if found is not None:
                own = found[:, :count].transpose(0, 1).flatten(1).double()
                maps.append(torch.stack([own.mean(1), own.square().mean(1)]))
            if vector is not None:
                vectors.append(vector.flatten(0, 1).double())
        of_maps = None
        if maps and not self.own:  # a ViT in training brings its maps to scale by itself
            mean, square = torch.stack(maps).mean(0)
            of_maps = (mean.float(), (square - mean.square()).clamp_min(0.0).sqrt().float())
        joined = torch.cat(vectors) if vectors else None
        of_vectors = None if joined is None else (joined.mean(0).float(), joined.std(0, correction=0).float())
        self.head.nets.standardise(of_maps, of_vectors)

    def save(self) -> None:
        """Write the state, from the first process only."""
        if self.world.main:
            states.save(self.state, self.file)

    # Steps --------------------------------------------------------------------------------------------------------

    def one_step(self) -> float:
        """Draw, forward, backward, clip, step."""
        request, state = self.request, self.state
        drawn = draw(self.part, request, state.step)
        mine = drawn[self.world.rank :: self.world.size]
        # Dropped places are drawn by the step, so that a resumed run draws the same.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed * 1_000_003 + state.step)
            self.modules.train()
            with autocast(request.precision, self.device):
                mine_scored = self._scores(mine)
            self.modules.eval()
        scores = self.world.whole(100.0 * mine_scored.float(), len(drawn))
        mos = torch.tensor([one.image.mos for one in drawn], device=self.device)
        loss = batch_loss(scores, mos, self.part.deviation, request.losses)
        # Gradients are averaged over processes, each of which holds those of its own rows: they must be summed.
        self.scaler.scale(loss * self.world.size).backward()
        descend(state, self.world, self.scaler, request)
        state.step += 1
        state.update_average(request.average)
        return float(loss.detach())

    def _features(self, drawn: Sequence[Drawn]) -> tuple[list[int], Tensor | None, Tensor | None]:
        """Views of each picture, and both branches' inputs of all views."""
        kept = self.cache.read([one.image.path for one in drawn], [one.mirrored for one in drawn])
        if kept.pictures is None:
            found = (None if one is None else one.to(self.device) for one in (kept.maps, kept.vectors))
            return kept.counts, *found  # type: ignore[return-value]
        pictures = kept.pictures.to(self.device)
        return kept.counts, *self.eyes.network(pictures[:, 0], pictures[:, 1:])

    def _scores(self, drawn: Sequence[Drawn], modules: nn.ModuleDict | None = None) -> Tensor:
        """[N] about 0…1: the mean over a picture's views."""
        counts, maps, vectors = self._features(drawn)
        scores = (modules or self.modules)["nets"](maps, vectors).score
        return torch.stack([part.mean() for part in scores.split(counts)])

    # Measuring ----------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Agreement of the averaged weights on held-back pictures, for the log; nothing is chosen by it."""
        with self._averaged():
            found = _agreement(self._held(), self._values(self._held()))
        if self.world.main:
            append(self.log, [{"stage": _STAGE, "step": self.state.step, **found}])
        return {"srcc": found["srcc"]}

    def _averaged(self) -> _Swapped:
        return _Swapped(self.modules, self.state.averaged("head"))

    def _held(self) -> tuple[RatedImage, ...]:
        return self.part.held[: self.request.validate_on]

    @torch.no_grad()
    def _values(self, images: Sequence[RatedImage]) -> list[float]:
        self.modules.eval()
        found: list[float] = []
        for first in range(0, len(images), self.request.rows):
            part = [Drawn(image, False) for image in images[first : first + self.request.rows]]
            found += (100.0 * self._scores(part)).clamp(0.0, 100.0).tolist()
        return found

    def finish(self) -> tuple[DiffHead, tuple[tuple[str, float, float], ...]]:
        """Round the averaged weights as a file does, measure, write; the head, and how it scores held-back pictures."""
        self.validate()
        request = self.request
        with self._averaged():
            held = self._values(self._held())
            scores = torch.tensor(self._values(self.part.train[: request.validate_on]))
            modules = copy.deepcopy(self.modules).cpu().eval().requires_grad_(False)
        head = replace(
            self.head,
            nets=cast(DiffV2Nets, modules["nets"]),
            vit=cast(VisionTransformer, modules["vit"]) if self.own else None,
        )
        validation = {**_agreement(self._held(), held), "steps": self.state.step}
        head = self._with_facts(head, validation, scores)
        if self.world.main:
            save_diff_v2(request.out, head)
        self.save()
        told = zip(self._held(), held, strict=True)
        return head, tuple((image.path.name, score, image.mos) for image, score in told)

    def _with_facts(self, head: DiffHead, validation: dict[str, Any], scores: Tensor) -> DiffHead:
        request = self.request
        names = ("steps", "batch", "rate", "decay", "drop", "average", "flip", "share", "limit", "seed", "precision")
        told = {name: getattr(request, name) for name in names} | {"losses": asdict(request.losses)}
        meta = replace(
            head.meta,
            sigmas=tuple(sorted(self.cache.noise_levels, reverse=True)),
            training_set=self.part.name,
            pictures=len(self.part.train),
            calibrated_on=request.calibrated_on,
            scale=(0.0, 100.0),
            centre=float(scores.mean()),
            spread=max(1e-3, float(scores.std())),
            validation=json.loads(json.dumps(validation)),
            settings={**head.settings.to_dict(), "training": told},
            identity=identity_of(self.reading.restorer, self.identity),
        )
        return replace(head, meta=meta)


def _agreement(images: Sequence[RatedImage], scores: Sequence[float]) -> dict[str, Any]:
    if len(scores) < 3 or max(scores) == min(scores):
        return {"srcc": 0.0, "n": len(scores)}
    return agreement(scores, [image.mos for image in images]).to_dict()


class _Swapped:
    """Within it, a module holds other weights, rounded as a file holds them."""

    def __init__(self, modules: nn.ModuleDict, weights: dict[str, Tensor]) -> None:
        self._modules, self._weights = modules, weights

    def __enter__(self) -> None:
        self._before = {name: value.clone() for name, value in self._modules.state_dict().items()}
        self._modules.load_state_dict(self._weights)
        for module in self._modules.values():
            rounded(module)

    def __exit__(self, *_: object) -> None:
        self._modules.load_state_dict(self._before)
