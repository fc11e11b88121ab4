"""One run of Best Of N: looks on the way, the finished images, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.errors import BadInput
from ..core.hosts.comfyui.ahead import why_none
from ..core.hosts.comfyui.best_of import Moment, Sampled, sample
from ..core.hosts.comfyui.conditioning_hash import of_guider
from ..core.hosts.comfyui.facts import fingerprint
from ..core.hosts.comfyui.sampling_task import Task
from ..core.methods.contract import Scorer
from ..core.records import ScoreBatch
from ..core.selection.looks import Looks, Mark, until_none_can_drop
from ..core.selection.race import Candidate, Race, RacePolicy
from ..core.selection.race_log import headline, to_dict, to_text
from ._history import places_among_previews, remember
from ._inputs import Stack, images_at_door
from ._judge import builtin_judge
from ._latents import latents_at_door
from ._scoring import with_names
from ._show import result_ui, thumbnails

HINT_JUDGE = "Nothing is connected to scorer, so the built-in judge was used."
UNSHOWN = "The sampler showed no intermediate states, so everybody was finished."
NO_STEPS = "There is no step to sample (denoise 0, or empty sigmas): every candidate is latent_image itself."


@dataclass(frozen=True, slots=True)
class BestOf:
    """What a run is told.

    Attributes:
        vae: Decodes previews and finished latents.
        scorer: Judges them; ``None``: the built-in judge.
        looks: When to look, and how many go on.
        policy: Early abort, and how many are finished at least.
        sampler: The sampler's name, where it is known: previews are compared within it.
        notes: What else the log says.
    """

    vae: Any
    scorer: Scorer | None
    looks: Looks
    policy: RacePolicy
    sampler: str = ""
    notes: tuple[str, ...] = ()


def best_of(task: Task, told: BestOf) -> io.NodeOutput:
    """Sample, look, finish, choose.

    Raises:
        BadInput: no scorer behind the scorer input, or a VAE that makes several images of one latent.
    """
    if told.scorer is not None and not isinstance(told.scorer, Scorer):
        raise BadInput(
            "a scorer (LC_SCORER)", type(told.scorer).__name__, "Connect one of Latent Critic's scorer nodes."
        )
    return _Run(task, told).output()


@dataclass(eq=False)
class _Run:
    task: Task
    told: BestOf
    race: Race = field(init=False)
    scorer: Scorer = field(init=False)
    leader: int = 0

    def __post_init__(self) -> None:
        task = self.task
        candidates = tuple(Candidate(seed, image) for seed in task.seeds for image in range(task.per_seed))
        self.race = Race(candidates, self.told.policy, task.steps)
        self.scorer = self.told.scorer or builtin_judge()
        self.race.notes.extend(self.told.notes)
        self.alone = task.why_alone

    def output(self) -> io.NodeOutput:
        task = self.task
        sampled = sample(task, self._marks(), self._look, _Progress(self))
        self.race.asked, self.race.computed = sampled.asked, sampled.computed
        if not sampled.called_back and self.told.looks.at and task.steps:
            self.race.notes.append(UNSHOWN)
        stack = self._decoded(sampled.latents[list(sampled.live)]) if sampled.live else Stack((), batched=False)
        found = self._scored(stack.channels_first()) if len(stack) else ScoreBatch(self.scorer.spec, ())
        seeds = [self.race.candidates[row].seed for row in sampled.live]
        if len(stack):
            found = found.with_seeds(seeds)
            found = remember(stack, found, conditionings=lambda: [of_guider(task.guider)] * len(stack))
        self.race.finish(found)
        return self._results(sampled, stack)

    def _marks(self) -> tuple[Mark, ...]:
        marks = self.told.looks.marks(self.task.steps)
        notes, mode = self.race.notes, self.told.policy.abort.mode
        if not self.task.steps:
            notes.append(NO_STEPS)
            return ()
        if self.told.looks.at and not marks:
            notes.append(f"{self.task.steps} steps leave no room for a look, so everybody was finished.")
        if not self.alone:
            if mode == "off":
                marks = self._that_can_drop(marks)
            if any(mark.ahead for mark in marks) and (why := why_none(self.task)):
                notes.append(f"Predicted clean images were looked at, without preview steps: {why}.")
                return tuple(mark._replace(ahead=0) for mark in marks)
            return marks
        notes.append(f"Sampled seed by seed, because {self.alone}; nobody is dropped by comparison.")
        # Rows of one seed act on one another here: dropping some of them would change the others.
        droppable = mode == "of history" and self.task.per_seed == 1
        return tuple(Mark(mark.step) for mark in marks) if droppable else ()

    def _that_can_drop(self, marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
        found = until_none_can_drop(marks, len(self.race.candidates), max(1, self.told.policy.least))
        if len(found) < len(marks):
            steps = ", ".join(str(mark.step) for mark in marks[len(found) :])
            self.race.notes.append(f"No look after step {steps}: nobody could be dropped there.")
        return found

    def _look(self, moment: Moment, live: list[int]) -> Sequence[int]:
        stack = self._decoded(moment.clean(live))
        scores = self._scored(stack.channels_first())
        places = None
        if self.told.policy.abort.mode == "of history":
            at = {
                "step": moment.step,
                # Only where there are some: what was remembered without them still counts.
                **({"preview_steps": moment.ahead} if moment.ahead else {}),
                "steps": self.race.steps,
                "sigma": f"{moment.sigma:.4g}",
                "sampler": self.told.sampler,
                "model": fingerprint(self.task.guider.model_patcher, "preview").to_text(),
            }
            places = places_among_previews(stack, scores, at)
        going = self.race.look(moment.step, moment.sigma, moment.share, scores, places, among=live)
        best = [live[place] for place in scores.ranking() if live[place] in going]
        self.leader = best[0] if best else live[0]
        return going

    def _decoded(self, latents: torch.Tensor) -> Stack:
        images = self.told.vae.decode(latents)
        if images.ndim == 5:
            images = images.reshape(-1, *images.shape[-3:])
        if len(images) != len(latents):
            raise BadInput(
                "one image per latent", f"{len(images)} images of {len(latents)}", "Video models are not supported."
            )
        return images_at_door([images])

    def _scored(self, images: Sequence[torch.Tensor]) -> ScoreBatch:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return self.scorer.score(images, watch=_stop_when_cancelled)

    def _results(self, sampled: Sampled, stack: Stack) -> io.NodeOutput:
        race, hint = self.race, "" if self.told.scorer else HINT_JUDGE
        assert race.finished is not None
        text, log = to_text(race, hint), to_dict(race)
        named = with_names(race.finished, [f"seed {score.seed}" for score in race.finished]) if len(stack) else None
        shown = {
            **result_ui(race.finished, hint=hint),
            "text": [text],
            "images": thumbnails(stack, named) if named else [],
            "best_of": [{key: log[key] for key in ("saved", "calls_of_all", "calls_made", "finished", "notes")}],
        }
        candidates = stack.take(range(len(stack)), batched=False) or [ExecutionBlocker(None)]
        best = self._best(sampled, stack)
        passed = race.best is not None
        last = (passed, len(stack), race.finished, candidates, text, json.dumps(log, ensure_ascii=False))
        return io.NodeOutput(*best, *last, ui=shown)

    def _best(self, sampled: Sampled, stack: Stack) -> list[Any]:
        """Image, latent, score, seed and noise of the winner, or why there is none."""
        race = self.race
        if race.best is None or race.winner is None or race.finished is None:
            return [ExecutionBlocker(headline(race))] * 5
        row, per_seed = sampled.live[race.best], self.task.per_seed
        first = row - race.winner.image
        of_seed = {**self.task.latent, "samples": sampled.latents[first : first + per_seed]}
        latents = latents_at_door([of_seed], per_seed)
        assert latents is not None
        noise = {"samples": sampled.noise[row : row + 1]}
        latent = latents.take([race.winner.image])[0]
        return [stack.singles[race.best], latent, race.finished[race.best].value, race.winner.seed, noise]


class _Progress:
    """ComfyUI's progress bar and preview; the picture is that of the best candidate so far."""

    def __init__(self, run: _Run) -> None:
        task = run.task
        self._run, self._steps, self._before, self._first = run, task.steps, 0, 0
        runs = len(task.seeds) if run.alone else 1
        self._total, self._last = runs * task.steps, -1
        self._show = latent_preview.prepare_callback(task.guider.model_patcher, self._total)

    def __call__(self, at: tuple[int, torch.Tensor, torch.Tensor, int], live: list[int]) -> None:
        step, x0, x, _ = at
        if self._run.alone and step <= self._last:  # the next seed's sampling has begun
            self._before += self._steps
            self._first += self._run.task.per_seed
        self._last = step
        row = self._run.leader - self._first  # of this sampling; seed by seed the leader may be of another
        row = row if row in live else (live[0] if live else 0)
        self._show(min(self._before + step, self._total - 1), x0[row : row + 1], x[row : row + 1], self._total)


def _stop_when_cancelled(*_: int) -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()
