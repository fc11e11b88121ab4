"""What travels between the attempts of Reroll Until Good: every candidate so far, and what comes of them in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ..core.records import ScoreBatch
from ..core.selection.reroll import Attempt, Rerolls
from ..core.selection.reroll_log import to_text, winner
from ._inputs import Stack, images_at_door
from ._latents import Latent, latents_at_door
from ._scoring import with_names
from ._show import result_ui, thumbnails


@dataclass(frozen=True, eq=False, slots=True)
class Session:
    """The attempts so far with their images and latents.

    Attributes:
        state: Policy, seeds, scores.
        sampling: KSampler's other widgets.
        prefix: Start of the ids of all nodes that the attempts are made of.
        hint: For the user, shown with the log.
        images: Every candidate [1, H, W, C], in the order of ``state.scores``.
        latents: The latent of each.
        rows: Where each lay among its attempt's latents: (LATENT, row).
        seed: The seed that is being sampled.
        began: When its sampling began, by the monotonic clock.
    """

    state: Rerolls
    sampling: Mapping[str, Any]
    prefix: str
    hint: str = ""
    images: tuple[torch.Tensor, ...] = ()
    latents: tuple[Latent, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()
    seed: int = 0
    began: float = 0.0

    def __repr__(self) -> str:
        """Short: ComfyUI writes a node's inputs into its errors."""
        return f"{len(self.state.attempts)} attempts so far"

    def ahead(self, seed: int) -> Session:
        """The same, while this seed is sampled."""
        return replace(self, seed=seed, began=time.monotonic())

    def add(self, images: Sequence[Any], latents: Sequence[Any], scores: ScoreBatch, calls: int) -> Session:
        """The session after the attempt that was ahead.

        Raises:
            BadInput: not one latent per image, as with video, or scores of another scorer.
        """
        stack = images_at_door(images)
        found = latents_at_door(latents, len(stack))
        assert found is not None
        attempt = Attempt(self.seed, scores, calls, time.monotonic() - self.began)
        return replace(
            self,
            state=self.state.add(attempt),
            images=(*self.images, *stack.singles),
            latents=(*self.latents, *(found.take([place])[0] for place in range(len(stack)))),
            rows=(
                *self.rows,
                *((which, row) for which, one in enumerate(latents) for row in range(len(one["samples"]))),
            ),
        )

    def results(self, start: Sequence[Latent]) -> tuple[list[Any], dict[str, Any]]:
        """The node's outputs but for the logs, and its ``ui``."""
        state, best, scores = self.state, self.state.best, self.state.scores
        assert scores is not None
        text = to_text(state, self.hint)
        stack = Stack(self.images, batched=False)
        named = with_names(scores, [f"seed {score.seed}" for score in scores])
        ui = {**result_ui(scores, hint=self.hint), "text": [text], "images": thumbnails(stack, named)}
        if best is None:
            first: list[Any] = [ExecutionBlocker(winner(state))] * 5
        else:
            place = best.index
            first = [self.images[place], self.latents[place], best.value, best.seed, self._noise(place, start)]
        return [*first, state.passed, scores, list(self.images)], ui

    def _noise(self, place: int, start: Sequence[Latent]) -> Latent:
        """The unit-variance noise that this candidate's sampling began with, as KSampler draws it."""
        which, row = self.rows[place]
        source, samples = start[min(which, len(start) - 1)], self.latents[place]["samples"]
        # KSampler may have given an empty latent another number of channels: the result tells the shape.
        like = torch.empty(len(source["samples"]), *samples.shape[1:], dtype=source["samples"].dtype)
        seed = self.state.scores[place].seed if self.state.scores else None
        noise = comfy.sample.prepare_noise(like, seed, source.get("batch_index"))
        return {"samples": noise[row : row + 1]}
