"""Reroll until good: which seed comes next, when to stop, what is best so far, and the log. No torch.

One rule book for the node, which samples between two calls, and for the library form, which loops (:func:`reroll`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from ..errors import BadInput
from ..records import Score, ScoreBatch, ScoreSpec
from .policy import check_threshold, meets
from .seeds import Seeds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RerollPolicy:
    """When to stop. The budget is up as soon as one of its three parts is.

    Attributes:
        threshold: Good is at least this (at most, where lower is better). Calibrated scores only. ``None``: nothing is
            good enough to stop early; the whole budget is used and the best is kept.
        attempts: At most this many, ≥ 1.
        calls: At most this many denoiser calls, ≥ 1. The first attempt always runs; another starts only if the dearest
            one so far would still fit.
        seconds: No attempt starts after this many, > 0. One that runs is finished.
        stop_at_first_good: Stop as soon as an image reaches the threshold, or use the whole budget all the same.
    """

    threshold: float | None = None
    attempts: int = 8
    calls: int | None = None
    seconds: float | None = None
    stop_at_first_good: bool = True

    def __post_init__(self) -> None:
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BadInput("a finite threshold", str(self.threshold), "Give a number, or switch the threshold off.")
        if self.attempts < 1:
            raise BadInput("a budget of at least 1 attempt", str(self.attempts), "Raise the number of attempts.")
        if self.calls is not None and self.calls < 1:
            raise BadInput("a budget of at least 1 denoiser call", str(self.calls), "Raise it, or switch it off.")
        if self.seconds is not None and not self.seconds > 0:
            raise BadInput("a budget of more than 0 seconds", str(self.seconds), "Raise it, or switch it off.")

    def check(self, spec: ScoreSpec) -> None:
        """Whether this scorer's values may be held against the threshold; before anything is sampled.

        Raises:
            UncalibratedThreshold: a threshold on a score that has no absolute scale.
            BadInput: a threshold outside the scale.
        """
        if self.threshold is not None:
            check_threshold(spec, self.threshold, "Switch the threshold off to use the whole budget and keep the best")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One seed, sampled and scored.

    Attributes:
        seed: What it was sampled with.
        scores: One score per image of the attempt. A missing one is a failure, whatever its reason.
        calls: Denoiser calls that its sampling takes; ``None`` when nobody counted.
        seconds: Wall-clock time of sampling and judging; near 0 for what came out of a cache.
    """

    seed: int
    scores: ScoreBatch
    calls: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rerolls:
    """The attempts so far, under one policy. Frozen: :meth:`add` gives the next state."""

    policy: RerollPolicy
    seeds: Seeds
    attempts: tuple[Attempt, ...] = ()

    def add(self, attempt: Attempt) -> Rerolls:
        """The state after one more attempt.

        Raises:
            BadInput: scores of another scorer, or of other settings.
        """
        if self.attempts and attempt.scores.spec != self.attempts[0].scores.spec:
            raise BadInput("scores of one scorer", "two with different settings", "Score all attempts alike.")
        return replace(self, attempts=(*self.attempts, attempt))

    @property
    def next_seed(self) -> int | None:
        """The seed to sample next; ``None`` when it is time to stop."""
        return None if self.stopped else self.seeds.first(len(self.attempts) + 1)[-1]

    @property
    def stopped(self) -> str:
        """Why there is no further attempt, for the user; empty while there is one."""
        policy, count = self.policy, len(self.attempts)
        if policy.stop_at_first_good and policy.threshold is not None and self.passed:
            return f"attempt {count} reached the threshold {policy.threshold:g}"
        if count >= policy.attempts:
            return f"the budget of {policy.attempts} attempts is used up"
        if len(self.seeds.first(count + 1)) <= count:
            return f"the list holds no more than {count} seeds"
        if policy.calls is not None and count and self.calls + self._dearest > policy.calls:
            return f"{self.calls} of {policy.calls} denoiser calls are used, and one more attempt takes {self._dearest}"
        if policy.seconds is not None and self.seconds >= policy.seconds:
            return f"{self.seconds:.1f} s of {policy.seconds:g} s are used"
        return ""

    @property
    def calls(self) -> int:
        """Denoiser calls of all attempts that were counted."""
        return sum(attempt.calls or 0 for attempt in self.attempts)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all attempts."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def _dearest(self) -> int:
        return max(attempt.calls or 0 for attempt in self.attempts)

    @property
    def scores(self) -> ScoreBatch | None:
        """All images of all attempts in order, numbered through, each with its seed; ``None`` before the first."""
        if not self.attempts:
            return None
        pairs = [(attempt.seed, score) for attempt in self.attempts for score in attempt.scores]
        numbered = tuple(replace(score, index=index, seed=seed) for index, (seed, score) in enumerate(pairs))
        return replace(self.attempts[0].scores, scores=numbered)

    @property
    def best(self) -> Score | None:
        """The best image so far, its index counted over all attempts; the first of equals; ``None``: none scored."""
        scores = self.scores
        winner = None if not scores else scores[scores.ranking()[0]]
        return winner if winner is not None and winner.ok else None

    @property
    def passed(self) -> bool:
        """Whether the best image reached the threshold; without a threshold, whether any image has a score."""
        best = self.best
        if best is None or best.value is None:
            return False
        limit = self.policy.threshold
        return limit is None or meets(self.attempts[0].scores.spec, best.value, limit)


class HasScores(Protocol):
    """What a scorer must be here: ``core/methods/contract.py`` says the rest."""

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        ...

    def score(self, images: Any) -> ScoreBatch:
        """Score every image, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Rerolled(Generic[T]):
    """What a run of :func:`reroll` found.

    Attributes:
        image: The best image as ``generate`` gave it; ``None`` when no attempt has a score.
        score: Its score, with its seed; ``None`` likewise.
        passed: Whether it reached the threshold.
        log: Every attempt; ``core/selection/reroll_log.py`` writes it as text or JSON.
        images: All images in the order of the attempts, where they were to be kept.
    """

    image: T | None
    score: Score | None
    passed: bool
    log: Rerolls
    images: tuple[T, ...] = field(default=(), repr=False)

    @property
    def seed(self) -> int | None:
        """The seed of the best image."""
        return None if self.score is None else self.score.seed


def reroll(
    generate: Callable[[int], T],
    scorer: HasScores,
    policy: RerollPolicy,
    seeds: Seeds,
    *,
    calls: Callable[[], int] | None = None,
    keep_images: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Rerolled[T]:
    """Generate and score, seed after seed, until one is good or the budget is used up.

    Args:
        generate: Seed → image, in whatever form the scorer takes. What it raises goes through.
        scorer: Scores one image at a time.
        policy: Threshold and budget.
        seeds: The order of seeds.
        calls: Denoiser calls so far, for a budget of calls.
        keep_images: Keep every image. Without it only the best is held, so that memory does not grow.
        clock: Seconds, for tests.

    Raises:
        UncalibratedThreshold: a threshold on a score that has no absolute scale; before anything is generated.
        BadInput: a budget of calls that nobody counts.
    """
    policy.check(scorer.spec)
    if policy.calls is not None and calls is None:
        raise BadInput("a counter for a budget of calls", "none", "Give calls=, a function that tells them so far.")
    state, best, images = Rerolls(policy, seeds), None, []
    while (seed := state.next_seed) is not None:
        began, before = clock(), calls() if calls else 0
        image = generate(seed)
        scores = scorer.score([image])
        spent = calls() - before if calls else None
        leader = state.best
        state = state.add(Attempt(seed, scores, spent, clock() - began))
        if state.best != leader:
            best = image
        if keep_images:
            images.append(image)
    return Rerolled(best, state.best, state.passed, state, tuple(images))
