"""Halving over generators: start many seeds, look at them on the way, finish only the promising ones. No torch.

Each candidate is a generator that yields a preview (such as the predicted clean image) at every look and returns the
finished image. All are taken to the same look, scored there, and those that do not go on are closed. Who goes on is
decided as in the node Best Of N.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import BadInput
from ..records import Score, ScoreBatch
from .abort import EarlyAbort, Place
from .halving import Halving, spent
from .race import Candidate, Race, RacePolicy
from .reroll import HasScores

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw.

    Attributes:
        seeds: The live candidates, in order.
        scores: The score of each one's preview.
        kept: Seeds that went on.
        dropped: Every other seed, with the reason in words.
    """

    seeds: tuple[int, ...]
    scores: ScoreBatch
    kept: tuple[int, ...]
    dropped: dict[int, str]


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

    def cost(self, at: Sequence[float], extra: Sequence[float] = ()) -> float:
        """Share of the full cost that was spent, when the looks were at these fractions of the way.

        ``extra``: what each preview itself costs, as a share of the whole way, where it is more than what the
        candidate has computed anyway.

        Raises:
            BadInput: not one fraction per look, or fractions that do not rise between 0 and 1.
        """
        return spent([*(len(look.seeds) for look in self.looks), len(self.finished)], at, extra)


def halve(
    generate: Callable[[int], Generator[T, None, T]],
    scorer: HasScores,
    policy: Halving,
    seeds: Sequence[int],
    *,
    abort: EarlyAbort | None = None,
    standing: Callable[[int, ScoreBatch], Sequence[Place | None]] | None = None,
) -> Halved[T]:
    """Run the candidates side by side and finish the best ones. What ``generate`` raises goes through; all are closed.

    Args:
        generate: Seed → generator of one preview per share of the policy; it returns the finished image.
        scorer: Scores previews and finished images.
        policy: How many go on after each look. A look at which no preview has a score drops nobody.
        seeds: One per candidate, all different.
        abort: Drops those that are far behind, beside the policy, which keeps its ``least`` all the same.
        standing: (look, scores) → where each preview stands among earlier ones of that look, for an abort
            ``of history``.

    Raises:
        BadInput: no seeds, the same seed twice, an abort of history without ``standing``, or a generator with fewer or
            more previews than the policy has shares.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise BadInput("one seed or more, all different", str(list(seeds)), "Name each seed once.")
    if abort is not None and abort.mode == "of history" and standing is None:
        raise BadInput("a history for an abort of history", "none", "Give one, or abort of this batch.")
    race = Race(tuple(map(Candidate, seeds)), RacePolicy(abort or EarlyAbort(), policy.least), len(policy.keep) + 1)
    running = {seed: generate(seed) for seed in seeds}
    looks: list[Look] = []
    try:
        for number, share in enumerate(policy.keep):
            live = tuple(running)
            scores = _scored(scorer, {seed: _preview(running[seed], number) for seed in live})
            race.look(number + 1, 0.0, share, scores, None if standing is None else standing(number, scores))
            why = {seeds[place]: reason for place, reason in race.looks[-1].dropped.items()}
            for seed in why:
                running.pop(seed).close()
            looks.append(Look(live, scores, tuple(running), why))
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
