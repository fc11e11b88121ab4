"""Rerolling and best-of-N from a script: over any function that turns a seed into an image.

import latent_critic
found = latent_critic.reroll(lambda seed: pipe(prompt, generator=torch.manual_seed(seed)).images[0], threshold=60)

With a generator that yields previews on the way, only the promising seeds are finished:

found = latent_critic.best_of(generate, n=16, halving=latent_critic.Halving((0.5, 0.5)))
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import isgeneratorfunction
from operator import index
from typing import Any, SupportsIndex, TypeVar, overload

import torch
from PIL import Image

from .errors import BadInput
from .history.store import History
from .images import from_picture
from .methods.contract import Scorer
from .methods.judge import Judge
from .records import ScoreBatch, ScoreSpec
from .selection.abort import EarlyAbort, Place
from .selection.halve import Halved, halve
from .selection.halving import Halving
from .selection.reroll import Rerolled, RerollPolicy
from .selection.reroll import reroll as run
from .selection.seeds import SeedMode, Seeds

T = TypeVar("T")


def reroll(
    generate: Callable[[int], T],
    scorer: Scorer | None = None,
    *,
    threshold: float | None = None,
    attempts: int = 8,
    calls: int | None = None,
    seconds: float | None = None,
    seeds: SupportsIndex | Iterable[int] = 0,
    seed_mode: SeedMode = "increment",
    stop_at_first_good: bool = True,
    count_calls: Callable[[], int] | None = None,
    keep_images: bool = False,
) -> Rerolled[T]:
    """Generate seed after seed until an image is good enough or the budget is used up; the best so far is kept.

    Args:
        generate: Seed → one image: a PIL image, or a tensor [3, H, W] or [1, 3, H, W] in [0, 1]. What it raises goes
            through.
        scorer: Judges the images; without one the built-in judge does (0 to 100).
        threshold: Good is at least this. ``None``: use the whole budget and keep the best.
        attempts: At most this many images.
        calls: At most this many denoiser calls, as ``count_calls`` tells them. The first image is always made.
        seconds: No attempt starts after this many.
        seeds: The first seed, or the seeds themselves.
        seed_mode: How to go on from the first seed: ``increment`` or ``random``.
        stop_at_first_good: Off, the whole budget is used although one is good.
        count_calls: Denoiser calls so far, counted by you.
        keep_images: Keep all images. Without it only the best is held in memory.

    Returns:
        ``image``, ``score``, ``seed``, ``passed`` and ``log``; ``image`` is ``None`` when no image has a score.

    Raises:
        UncalibratedThreshold: a threshold on a score that has no absolute scale; before anything is generated.
        BadInput: an empty budget, no seeds, or something that is no image.
    """
    policy = RerollPolicy(threshold, attempts, calls, seconds, stop_at_first_good)
    judge = _AnyImage(scorer or Judge.load())
    return run(generate, judge, policy, _order(seeds, seed_mode), calls=count_calls, keep_images=keep_images)


@overload
def best_of(
    generate: Callable[[int], T],
    scorer: Scorer | None = None,
    *,
    n: int | None = None,
    seeds: SupportsIndex | Iterable[int] = 0,
    seed_mode: SeedMode = "increment",
    keep_images: bool = False,
) -> Rerolled[T]: ...


@overload
def best_of(
    generate: Callable[[int], Generator[T, None, T]],
    scorer: Scorer | None = None,
    *,
    n: int | None = None,
    seeds: SupportsIndex | Iterable[int] = 0,
    seed_mode: SeedMode = "increment",
    halving: Halving,
    abort: EarlyAbort | None = None,
    history: History | None = None,
    at: Mapping[str, Any] | None = None,
) -> Halved[T]: ...


def best_of(
    generate: Callable[[int], Any],
    scorer: Scorer | None = None,
    *,
    n: int | None = None,
    seeds: SupportsIndex | Iterable[int] = 0,
    seed_mode: SeedMode = "increment",
    keep_images: bool = False,
    halving: Halving | None = None,
    abort: EarlyAbort | None = None,
    history: History | None = None,
    at: Mapping[str, Any] | None = None,
) -> Any:
    """The best of ``n`` seeds: each generated to the end, or, with ``halving``, only the promising ones.

    Args:
        generate: Seed → one image, as for :func:`reroll`. With ``halving``: seed → a generator that yields one preview
            at each look (such as the predicted clean image after a fifth of the steps) and returns the finished image.
            A generator that is dropped is closed: what stands in its ``finally`` still runs.
        scorer: Judges images and previews; without one the built-in judge does (0 to 100).
        n: How many seeds: 8, or all that are listed, unless you say otherwise.
        seeds: The first seed, or the seeds themselves.
        seed_mode: How to go on from the first seed: ``increment`` or ``random``.
        keep_images: Without halving: keep all images. Without it only the best is held in memory.
        halving: How many go on after each look.
        abort: With halving: drop those that are far behind at a look.
        history: Where previews are recorded and compared, for an abort ``of history``.
        at: With a history: what earlier previews must share with these to be compared, apart from the scorer and the
            number of the look, such as ``{"model": "sd15", "steps": 20, "looks": [0.2, 0.4]}``.

    Returns:
        With halving a ``Halved``: ``image``, ``score``, ``seed``, ``looks``, ``finished``, ``cost(at)``; otherwise as
        :func:`reroll` without a threshold.

    Raises:
        BadInput: no seeds, something that is no image, a generator without halving, previews that do not fit the
            looks, or a history without ``at``.
    """
    if n is None:
        seeds = tuple(seeds) if isinstance(seeds, Iterable) else seeds
        n = len(seeds) if isinstance(seeds, tuple) else 8
    if halving is None:
        if isgeneratorfunction(generate):
            raise BadInput("halving for a generator", "none", "Give halving=Halving((0.5,)), one share per preview.")
        return reroll(generate, scorer, attempts=n, seeds=seeds, seed_mode=seed_mode, keep_images=keep_images)
    if history is not None and not at:
        remedy = 'Give for example at={"model": "sd15", "steps": 20, "looks": [0.2, 0.4]}.'
        raise BadInput("at: what makes previews of different runs comparable", "none", remedy)
    order = _order(seeds, seed_mode).first(RerollPolicy(attempts=n).attempts)
    standing = None if history is None else partial(_standing, history, at or {})
    return halve(generate, _AnyImage(scorer or Judge.load()), halving, order, abort=abort, standing=standing)


def _order(seeds: SupportsIndex | Iterable[int], mode: SeedMode) -> Seeds:
    # Whatever counts as an integer is one, such as numpy's.
    if isinstance(seeds, Iterable):
        return Seeds(mode="list", listed=tuple(index(seed) for seed in seeds))
    return Seeds(index(seeds), mode)


def _standing(history: History, at: Mapping[str, Any], look: int, scores: ScoreBatch) -> list[Place | None]:
    """Record previews, apart from finished images and from other looks; where each stands among earlier ones."""
    spec = replace(scores.spec, settings={**scores.spec.settings, "preview": {**at, "look": look}})
    found = history.record(replace(scores, spec=spec), [None] * len(scores))
    return [None if place is None else (place.percentile, place.among) for place in found]


class _AnyImage:
    """A scorer of one image in the form in which a script has it."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    @property
    def spec(self) -> ScoreSpec:
        """What the numbers mean."""
        return self._scorer.spec

    def score(self, images: list[object]) -> ScoreBatch:
        """Score every image, in order."""
        return self._scorer.score([_pixels(image) for image in images])


def _pixels(image: object) -> torch.Tensor:
    if isinstance(image, Image.Image):
        return from_picture(image)
    if isinstance(image, torch.Tensor) and image.ndim == 4 and len(image) == 1:
        return image[0]
    if isinstance(image, torch.Tensor) and image.ndim == 3:
        return image
    got = f"shape {list(image.shape)}" if isinstance(image, torch.Tensor) else type(image).__name__
    raise BadInput("one PIL image or one tensor [3, H, W]", got, "Let generate return a single image.")
