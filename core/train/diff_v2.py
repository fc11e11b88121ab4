"""Train a DiffV2IQA head: its two branches, and a ViT of its own where that is asked for.

After the facts of Wang et al., 2024 (arXiv 2402.14401), reimplemented, not by its authors: squared error on MOS / 100.
Ours on top: restorations and frozen backbones' features are computed once, a moving average of the weights, validation
by content, nothing chosen by it, and runs that can be killed at any moment.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..files import sweep
from ..methods.diff_v2_iqa_eyes import Eyes, load_eyes
from ..methods.diff_v2_iqa_file import rounded, save_diff_v2
from ..methods.diff_v2_iqa_head import DiffHead, identity_of, untrained
from ..methods.diff_v2_iqa_reading import Reading
from ..nets.diff_v2 import DiffV2Nets
from ..nets.diff_v2_vit import VisionTransformer
from .diff_v2_cache import SeenCache
from .diff_v2_request import DiffRequest
from .dp_iqa_data import Drawn, split
from .genziqa_world import Alone, World
from .ldm import state as states
from .rated_run import RatedRun, agreed
from .stepping import Watch, take_steps

if TYPE_CHECKING:
    from ..restoration.contract import Restorer

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
        calls: Of the denoiser in this call, in this process; what the cache held took none.
        held_back: Name, score and rating of each picture that it was validated on.
    """

    head: DiffHead | None
    validation: dict[str, Any]
    step: int
    seconds_per_step: float
    calls: int = 0
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
        return DiffResult(None, {}, run.state.step, seconds, run.reading.calls)
    head, held_back = run.finish()
    return DiffResult(head, dict(head.meta.validation), run.state.step, seconds, run.reading.calls, held_back)


class _Run(RatedRun):
    """One run: the request, the state, and what is fixed between them."""

    stage = "diff_v2"

    def __init__(
        self, request: DiffRequest, restorer: Restorer, watch: Watch | None, world: World, device: torch.device
    ) -> None:
        self.request = request
        own = {"seed": request.seed, "own_vit": request.own_vit}
        self.head = untrained(request.settings, request.shape, restorer=restorer, **own)
        branch = self.head.nets.shape.branch
        self.eyes: Eyes = load_eyes(request.settings, request.files, self.head.vit, branch=branch)
        self.identity = {name: told for name, told in self.eyes.identity.items() if not (name == "vit" and self.own)}
        self.eyes.network.to(device)
        self.reading = Reading(restorer, self.eyes.network, request.settings, device, request.rows)
        what, shared = "restorations" if self.own else request.cache, request.shared or request.run
        self.cache = SeenCache(shared / "cache", self.reading, self.identity, what)
        modules = nn.ModuleDict({"nets": self.head.nets})
        if self.head.vit is not None:
            modules["vit"] = self.head.vit
        modules.requires_grad_(True).to(device)
        for module in modules.modules():
            if isinstance(module, nn.Dropout):
                module.p = request.drop
        state = states.begin({"head": modules}, {}, 0, request.decay)
        super().__init__(request, split(replace(request, run=shared)), modules, state, watch, world, device)

    @property
    def own(self) -> bool:
        """Whether a ViT is trained too."""
        return self.head.vit is not None

    # Beginning ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Restore what is not in the cache, then go on from a saved state, or set the features' scale."""
        sweep(self.request.run, self.file.name)
        self._extract()
        if self.resumed():
            return
        self._standardise()
        self.head.nets.begin_at(self.mean_rating())
        self.begin_average()
        self.state.notes = self.notes()

    def told(self) -> dict[str, Any]:
        """Restorer and backbones."""
        return {"restorer": json.dumps(identity_of(self.reading.restorer, self.identity), sort_keys=True)}

    def _extract(self) -> None:
        """Every process restores its share, then all look whether the files are there."""
        sides = (self.part.held, self.part.train)
        paths = [image.path for side in sides for image in side]
        mine = paths[self.world.rank :: self.world.size]
        # A run that has begun goes on with the pictures that it began with.
        self.cache.extract(mine, self.tell("restorations"), again=not self.file.exists())
        self.world.first(True)  # waits for the others
        unusable = set(self.cache.extract(paths))
        train, held = (tuple(image for image in side if image.path not in unusable) for side in sides[::-1])
        if min(len(train), len(held)) < 2:
            raise BadInput("pictures that can be restored", str(len(train) + len(held)), "See the log for the reasons.")
        self.part = replace(self.part, train=train, held=held)

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

    # Scores -------------------------------------------------------------------------------------------------------

    def _features(self, drawn: Sequence[Drawn]) -> tuple[list[int], Tensor | None, Tensor | None]:
        """Views of each picture, and both branches' inputs of all views."""
        kept = self.cache.read([one.image.path for one in drawn], [one.mirrored for one in drawn])
        if kept.pictures is None:
            found = (None if one is None else one.to(self.device) for one in (kept.maps, kept.vectors))
            return kept.counts, *found  # type: ignore[return-value]
        pictures = kept.pictures.to(self.device)
        return kept.counts, *self.eyes.network(pictures[:, 0], pictures[:, 1:])

    def scores(self, drawn: Sequence[Drawn]) -> Tensor:
        """[N] about 0…1: the mean over a picture's views."""
        counts, maps, vectors = self._features(drawn)
        return torch.stack([part.mean() for part in self.head.nets(maps, vectors).score.split(counts)])

    # Measuring ----------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Agreement of the averaged weights on held-back pictures, for the log; nothing is chosen by it."""
        with self._averaged():
            found = agreed(self.held(), self.values(self.held()))
        self.note_validation(found)
        return {"srcc": found["srcc"]}

    def _averaged(self) -> _Swapped:
        return _Swapped(self.network, self.state.averaged("head"))

    def finish(self) -> tuple[DiffHead, tuple[tuple[str, float, float], ...]]:
        """Round the averaged weights as a file does, measure, write; the head, and how it scores held-back pictures."""
        self.validate()
        request = self.request
        with self._averaged():
            held = self.values(self.held())
            of_training = self.values(self.part.train[: request.validate_on])
            modules = copy.deepcopy(self.network).cpu().eval().requires_grad_(False)
        assert isinstance(modules, nn.ModuleDict)
        head = replace(
            self.head,
            nets=cast(DiffV2Nets, modules["nets"]),
            vit=cast(VisionTransformer, modules["vit"]) if self.own else None,
        )
        meta = replace(
            head.meta,
            sigmas=tuple(sorted(self.cache.noise_levels, reverse=True)),
            settings={**head.settings.to_dict(), "training": request.told()},
            identity=identity_of(self.reading.restorer, self.identity),
            **self.facts({**agreed(self.held(), held), "steps": self.state.step}, of_training),
        )
        head = replace(head, meta=meta)
        if self.world.main:
            save_diff_v2(request.out, head)
        self.save()
        told = zip(self.held(), held, strict=True)
        return head, tuple((image.path.name, score, image.mos) for image, score in told)


class _Swapped:
    """Within it, a module holds other weights, rounded as a file holds them."""

    def __init__(self, modules: nn.Module, weights: dict[str, Tensor]) -> None:
        self._modules, self._weights = modules, weights

    def __enter__(self) -> None:
        self._before = {name: value.clone() for name, value in self._modules.state_dict().items()}
        self._modules.load_state_dict(self._weights)
        for module in self._modules.children():
            rounded(module)

    def __exit__(self, *_: object) -> None:
        self._modules.load_state_dict(self._before)
