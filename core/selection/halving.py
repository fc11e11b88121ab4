"""Successive halving: start many, look at them on the way, finish only the promising ones. No torch.

Each candidate is a generator that yields a preview (such as the predicted clean image) at every look and returns the
finished image. All are taken to the same look, scored there, and the worse part is closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, TypeVar

from ..errors import BadInput
from ..records import Score, ScoreBatch
from .reroll import HasScores

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Halving:
    """How many go on after each look.

    Attributes:
        keep: Share of the live candidates that goes on after each look, each in (0, 1], rounded up. After the last
            share everybody who is left is finished; no share at all finishes everybody.
        least: At least this many go on, ≥ 1.
    """

    keep: tuple[float, ...] = (0.5,)
    least: int = 1

    def __post_init__(self) -> None:
        for share in self.keep:
            if not 0 < share <= 1:
                raise BadInput("shares above 0 and up to 1", str(share), "0.5 keeps the better half at that look.")
        if self.least < 1:
            raise BadInput("at least 1 candidate that goes on", str(self.least), "Raise least.")

    def counts(self, candidates: int) -> tuple[int, ...]:
        """How many are live from the start, after the first look, after the second …

        Raises:
            BadInput: no candidates.
        """
        if candidates < 1:
            raise BadInput("at least 1 candidate", str(candidates), "Give one seed or more.")
        live = [candidates]
        for share in self.keep:
            live.append(min(live[-1], max(self.least, math.ceil(live[-1] * share - 1e-9))))
        return tuple(live)

    def cost(self, candidates: int, looks: Sequence[float]) -> float:
        """Share of the full cost that is spent when looks are at these fractions of the way, each in (0, 1), rising.

        Raises:
            BadInput: not one look per share, or looks that do not rise.
        """
        marks = [0.0, *looks, 1.0]
        if len(looks) != len(self.keep) or any(low >= high for low, high in pairwise(marks)):
            raise BadInput(f"{len(self.keep)} rising fractions between 0 and 1", str(list(looks)), "One per share.")
        live = self.counts(candidates)
        spent = sum(count * (high - low) for count, (low, high) in zip(live, pairwise(marks), strict=True))
        return spent / candidates

    def survivors(self, look: int, batch: ScoreBatch) -> tuple[int, ...]:
        """Places of the live candidates that go on after this look (from 0), in their order.

        One without a score goes on only where there are too few with one; among equals the first ones do.
        """
        if look >= len(self.keep):
            return tuple(range(len(batch)))
        count = replace(self, keep=(self.keep[look],)).counts(len(batch))[1]
        return tuple(sorted(batch.ranking()[:count]))


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw.

    Attributes:
        seeds: The live candidates, in order.
        scores: The score of each one's preview.
        kept: Seeds that went on.
    """

    seeds: tuple[int, ...]
    scores: ScoreBatch
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Halved(Generic[T]):
    """What a run of :func:`halve` found.

    Attributes:
        image: The best finished image; ``None`` when none has a score.
        score: Its score with its seed; ``None`` likewise.
        looks: Every look.
        finished: The scores of the finished images, with their seeds.
    """

    image: T | None
    score: Score | None
    looks: tuple[Look, ...]
    finished: ScoreBatch

    @property
    def seed(self) -> int | None:
        """The seed of the best image."""
        return None if self.score is None else self.score.seed


def halve(
    generate: Callable[[int], Generator[T, None, T]], scorer: HasScores, policy: Halving, seeds: Sequence[int]
) -> Halved[T]:
    """Run the candidates side by side and finish the best ones. What ``generate`` raises goes through; all are closed.

    Args:
        generate: Seed → generator of one preview per share of the policy; it returns the finished image.
        scorer: Scores previews and finished images.
        policy: Who goes on.
        seeds: One per candidate, all different.

    Raises:
        BadInput: no seeds, the same seed twice, or a generator with fewer or more previews than the policy has shares.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise BadInput("one seed or more, all different", str(list(seeds)), "Name each seed once.")
    running = {seed: generate(seed) for seed in seeds}
    looks: list[Look] = []
    try:
        for look in range(len(policy.keep)):
            live = tuple(running)
            scores = _scored(scorer, {seed: _preview(running[seed], look) for seed in live})
            kept = tuple(live[place] for place in policy.survivors(look, scores))
            looks.append(Look(live, scores, kept))
            for seed in set(live) - set(kept):
                running.pop(seed).close()
        images = {seed: _end(running[seed], len(policy.keep)) for seed in tuple(running)}
    finally:
        for candidate in running.values():
            candidate.close()
    finished = _scored(scorer, images)
    best = finished[finished.ranking()[0]]
    won = best if best.ok else None
    return Halved(None if won is None else images[best.seed or 0], won, tuple(looks), finished)


def _scored(scorer: HasScores, images: dict[int, T]) -> ScoreBatch:
    return scorer.score(list(images.values())).with_seeds(list(images))


def _preview(candidate: Generator[T, None, T], look: int) -> T:
    try:
        return next(candidate)
    except StopIteration:
        raise BadInput("one preview per look", f"only {look}", "Yield one for each share of the policy.") from None


def _end(candidate: Generator[T, None, T], looks: int) -> T:
    try:
        next(candidate)
    except StopIteration as stop:
        return stop.value
    raise BadInput(f"{looks} previews", "more", "Yield one for each share of the policy, then return the image.")
