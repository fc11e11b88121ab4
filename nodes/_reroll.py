"""One run of Reroll Until Good: what its attempts hand over, and what comes of them in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.sample
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.hosts.comfyui.conditioning_hash import of_conditioning
from ..core.records import ScoreBatch
from ..core.selection.reroll import Attempt, Rerolls
from ..core.selection.reroll_log import to_dict, to_text, winner
from ._inputs import Stack, images_at_door
from ._latents import Latent, latents_at_door
from ._scoring import scores_for, with_names
from ._show import result_ui, thumbnails


@dataclass(eq=False, slots=True)
class JudgedAttempt:
    """One attempt. ComfyUI caches it, so that a later run finds it again.

    Attributes:
        seed: What it was sampled with.
        scores: One score per image.
        calls: Denoiser calls that its sampling took.
        rows: Where each image lay among the attempt's latents: (LATENT, row).
        images: Single images [1, H, W, C]; empty once they were forgotten.
        latents: The latent of each.
    """

    seed: int
    scores: ScoreBatch
    calls: int
    rows: tuple[tuple[int, int], ...]
    images: tuple[torch.Tensor, ...] = field(repr=False)
    latents: tuple[Latent, ...] = field(repr=False)

    @property
    def forgotten(self) -> bool:
        """Whether the pixels are gone."""
        return not self.images

    def forget(self) -> None:
        """Let go of the pixels and latents; the scores stay."""
        self.images, self.latents = (), ()


def judged(
    images: Sequence[Any], latents: Sequence[Any], positive: Sequence[Any], calls: int, scorer: Any, seed: int
) -> JudgedAttempt:
    """Score what an attempt sampled.

    ``positive`` holds the CONDITIONING of each LATENT; its last one stands for all further ones.

    Raises:
        BadInput: not one latent per image, as with video, or no scorer.
    """
    stack = images_at_door(images)
    found = latents_at_door(latents, len(stack))
    assert found is not None
    rows = tuple((which, row) for which, one in enumerate(latents) for row in range(len(one["samples"])))

    def told() -> list[str | None]:
        hashes = [of_conditioning(each) for each in positive] or [None]
        return [hashes[min(which, len(hashes) - 1)] for which, _ in rows]

    scores, _hint = scores_for(stack, [scorer], None, seeds=[seed], conditionings=told)
    return JudgedAttempt(
        seed=seed,
        scores=scores,
        calls=calls,
        rows=rows,
        images=stack.singles,
        latents=tuple(found.take([place])[0] for place in range(len(stack))),
    )


@dataclass(eq=False, slots=True)
class Run:
    """The attempts of one run so far. It lives as long as the run and is never cached.

    Attributes:
        state: Policy, seeds, scores.
        sampling: KSampler's other widgets.
        links: What attempts are made of, as links.
        prefix: Start of the ids of all nodes that the attempts are made of.
        keep_all: Hold every candidate; otherwise only the best attempt keeps its pixels.
        hint: For the user, shown with the log.
        shown: What the node itself shows, filled at the end: see :meth:`results`.
    """

    state: Rerolls
    sampling: Mapping[str, Any]
    links: Mapping[str, Any]
    prefix: str
    keep_all: bool = True
    hint: str = ""
    shown: dict[str, Any] = field(default_factory=dict)
    _attempts: list[JudgedAttempt] = field(default_factory=list)
    _leader: int | None = None
    _began: float = 0.0

    def __repr__(self) -> str:
        """Short: ComfyUI writes a node's inputs into its errors."""
        return f"{len(self._attempts)} attempts so far"

    def __len__(self) -> int:
        return len(self._attempts)

    def begin_next(self) -> int | None:
        """Number of the attempt to make next, from 0; ``None`` when it is time to stop. Starts its clock."""
        if self.state.stopped:
            return None
        self._began = time.monotonic()
        return len(self._attempts)

    def seeds(self, first: int, most: int) -> list[int]:
        """The seeds of the attempts from this number on, at most so many."""
        return self.state.seeds.first(first + most)[first:]

    def take(self, number: int, sampled: JudgedAttempt) -> None:
        """Count an attempt in; one that is in already changes nothing.

        Raises:
            BadInput: scores of another scorer.
        """
        if number < len(self._attempts):
            return
        seconds = time.monotonic() - self._began
        self.state = self.state.add(Attempt(sampled.seed, sampled.scores, sampled.calls, seconds))
        self._attempts.append(sampled)
        before, self._leader = self._leader, self._place_of_best()[0]
        if not self.keep_all and before != number:
            loser = before if self._leader == number else number
            if loser is not None:
                self._attempts[loser].forget()

    def _place_of_best(self) -> tuple[int | None, int]:
        """Attempt of the best image, and its place among that attempt's images."""
        best = self.state.best
        left = -1 if best is None else best.index
        for number, sampled in enumerate(self._attempts if best else ()):
            if left < len(sampled.scores):
                return number, left
            left -= len(sampled.scores)
        return None, 0

    @property
    def forgotten_best(self) -> int | None:
        """The seed of the best attempt where an earlier run let go of its pixels."""
        if self._leader is None or not self._attempts[self._leader].forgotten:
            return None
        return self._attempts[self._leader].seed

    def restore(self, sampled: JudgedAttempt) -> None:
        """Take the pixels of the best attempt, which was sampled again."""
        assert self._leader is not None
        mine = self._attempts[self._leader]
        self._attempts[self._leader] = JudgedAttempt(
            mine.seed, mine.scores, mine.calls, mine.rows, sampled.images, sampled.latents
        )

    def results(self, start: Sequence[Latent]) -> tuple[list[Any], dict[str, Any]]:
        """The node's outputs, and its ``ui``; :attr:`shown` gets the same, with the log as JSON has it."""
        scores = self.state.scores
        assert scores is not None
        text, log = to_text(self.state, self.hint), to_dict(self.state)
        images, shown = self._held(scores)
        named = with_names(shown, [f"seed {score.seed}" for score in shown]) if len(shown) else shown
        pictures = thumbnails(Stack(images, batched=False), named) if images else []
        ui = {**result_ui(scores, hint=self.hint), "text": [text], "images": pictures}
        self.shown.update({**ui, "log": log})
        candidates = list(images) or [ExecutionBlocker(None)]
        return [*self._best(start), self.state.passed, scores, candidates, text, log], ui

    def _held(self, scores: ScoreBatch) -> tuple[tuple[torch.Tensor, ...], ScoreBatch]:
        """The images that are to be shown and handed on, and their scores."""
        if self.keep_all:
            return tuple(image for sampled in self._attempts for image in sampled.images), scores
        number, place = self._place_of_best()
        if number is None or self.state.best is None:
            return (), scores.take([])
        return (self._attempts[number].images[place],), scores.take([self.state.best.index])

    def _best(self, start: Sequence[Latent]) -> list[Any]:
        """Image, latent, score, seed and noise of the winner, or why there is none."""
        best = self.state.best
        number, place = self._place_of_best()
        if best is None or number is None:
            return [ExecutionBlocker(winner(self.state))] * 5
        sampled = self._attempts[number]
        noise = _noise(start, sampled.latents[place], sampled.rows[place], sampled.seed)
        return [sampled.images[place], sampled.latents[place], best.value, best.seed, noise]


def _noise(start: Sequence[Latent], latent: Latent, where: tuple[int, int], seed: int) -> Latent:
    """The unit-variance noise that a candidate's sampling began with, as KSampler draws it."""
    which, row = where
    source, samples = start[min(which, len(start) - 1)], latent["samples"]
    # KSampler may have given an empty latent another number of channels: the result tells the shape.
    like = torch.empty(len(source["samples"]), *samples.shape[1:], dtype=source["samples"].dtype)
    noise = comfy.sample.prepare_noise(like, seed, source.get("batch_index"))
    return {"samples": noise[row : row + 1]}
