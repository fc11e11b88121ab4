"""The candidates of one best-of-N run: who is live, who was dropped when and why, and who won. No torch.

The sampling itself lies elsewhere: it asks :meth:`Race.look` at every mark and computes what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..errors import BadInput
from ..records import Score, ScoreBatch
from .abort import EarlyAbort, Place
from .halving import Halving
from .policy import numeral


@dataclass(frozen=True, slots=True)
class Candidate:
    """One image to be.

    Attributes:
        seed: What it is sampled with.
        image: Its place in the latent batch, from 0.
    """

    seed: int
    image: int = 0


@dataclass(frozen=True, slots=True)
class RaceLook:
    """What one look saw.

    Attributes:
        step: After so many steps.
        sigma: Noise level of the prediction.
        live: Numbers of the candidates that were running.
        scores: The score of each one's predicted clean image.
        dropped: Candidate → why it does not go on.
        note: What else there is to say.
    """

    step: int
    sigma: float
    live: tuple[int, ...]
    scores: ScoreBatch
    dropped: dict[int, str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class RacePolicy:
    """Who goes on.

    Attributes:
        abort: Early abort.
        least: At least so many are finished whatever the abort says; 0 lets an abort end everybody.
    """

    abort: EarlyAbort = field(default_factory=EarlyAbort)
    least: int = 1

    def __post_init__(self) -> None:
        if self.least < 0:
            raise BadInput("at least 0 candidates to finish", str(self.least), "1 always hands back an image.")


@dataclass(eq=False, slots=True)
class Race:
    """The state of one run.

    Attributes:
        candidates: All of them, in order.
        policy: Who goes on.
        steps: Steps of the schedule.
        live: Numbers of those that were not dropped, in order.
        looks: What was seen so far.
        finished: Scores of the finished images in the order of ``live``; ``None`` until then.
        asked: Denoiser calls that finishing everybody takes; one image through the denoiser is one call.
        computed: Those that were made.
        notes: Lines for the user.
    """

    candidates: tuple[Candidate, ...]
    policy: RacePolicy
    steps: int
    live: tuple[int, ...] = ()
    looks: list[RaceLook] = field(default_factory=list)
    finished: ScoreBatch | None = None
    asked: int = 0
    computed: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.candidates:
            raise BadInput("at least 1 candidate", "0", "Give one seed or more.")
        self.live = tuple(range(len(self.candidates)))

    def look(
        self,
        step: int,
        sigma: float,
        share: float,
        scores: ScoreBatch,
        places: Sequence[Place | None] | None = None,
        among: Sequence[int] | None = None,
    ) -> tuple[int, ...]:
        """Decide who goes on; returns the numbers of those that do, of all that were looked at.

        A preview without a score goes on only where there are too few with one. When none has a score the look says
        nothing, and nobody is dropped.

        Args:
            step: After so many steps.
            sigma: Noise level of the prediction.
            share: Share of the live candidates that goes on, rounded up.
            scores: One per candidate that is looked at, in their order.
            places: Where each stands in the history of this step.
            among: Who is looked at; all live ones when ``None``.
        """
        seen = self.live if among is None else tuple(among)
        numbered = scores.with_seeds([self.candidates[number].seed for number in seen])
        if not any(score.ok for score in scores):
            reason = f"no preview has a score: {scores[0].reason}" if len(scores) else "nobody is left"
            self.looks.append(RaceLook(step, sigma, seen, numbered, {}, reason))
            return seen
        why = self._dropped(share, scores, places, len(self.live) - len(seen))
        gone = {seen[place]: reason for place, reason in why.items()}
        self.looks.append(RaceLook(step, sigma, seen, numbered, gone))
        self.live = tuple(number for number in self.live if number not in gone)
        return tuple(number for number in seen if number not in gone)

    def _dropped(
        self, share: float, scores: ScoreBatch, places: Sequence[Place | None] | None, others: int
    ) -> dict[int, str]:
        going = Halving((share,), max(1, self.policy.least)).survivors(0, scores)
        ranks = {place: rank for rank, place in enumerate(scores.ranking(), 1)}
        why = {
            place: _behind(scores[place], ranks[place], len(scores), len(going))
            for place in range(len(scores))
            if place not in going
        }
        aborted = self.policy.abort.below(scores, places)
        for place in scores.ranking()[: max(0, self.policy.least - others)]:
            aborted.pop(place, None)
        return why | aborted

    def finish(self, scores: ScoreBatch) -> None:
        """Take the scores of the finished images, one per live candidate in their order, with their seeds."""
        numbered = tuple(replace(score, index=place) for place, score in enumerate(scores))
        self.finished = replace(scores, scores=numbered)

    @property
    def best(self) -> int | None:
        """Place of the winner among the finished images; ``None`` when none has a score."""
        if self.finished is None or not len(self.finished):
            return None
        place = self.finished.ranking()[0]
        return place if self.finished[place].ok else None

    @property
    def winner(self) -> Candidate | None:
        """The candidate that won."""
        return None if self.best is None else self.candidates[self.live[self.best]]

    @property
    def saved(self) -> float:
        """Share of the denoiser calls that was not spent, 0 to 1."""
        return 1 - self.computed / self.asked if self.asked else 0.0


def _behind(score: Score, rank: int, of: int, going: int) -> str:
    if score.value is None:
        return f"not scored: {score.reason}"
    return f"{numeral(score.value)}, rank {rank} of {of}, best {going} go on"
