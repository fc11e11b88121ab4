"""From a node's inputs to scores: given scores, a connected scorer, or the built-in judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils

from ..core.errors import BadInput
from ..core.methods.contract import Scorer, Watch
from ..core.records import ScoreBatch, ScoreSpec
from ..core.selection.filtering import one_per_image
from ._history import remember
from ._inputs import Stack, one, seeds_at_door, texts_at_door
from ._judge import builtin_judge

HINT_JUDGE = (
    "Nothing is connected to scorer or scores, so the built-in judge was used. "
    "For the judgement of your loaded model, connect a Zero-shot Scorer."
)


def watch_in_comfyui(total: int) -> Watch:
    """The node's progress bar, which also stops at ComfyUI's Cancel."""
    bar = comfy.utils.ProgressBar(total)

    def watch(done: int, steps: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, steps)

    return watch


def scores_for(
    images: Stack,
    scorer: Sequence[Any] | None,
    scores: Sequence[Any] | None,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[Any] | None = None,
    judge: Callable[[], Scorer] = builtin_judge,
    check: Callable[[ScoreSpec], None] | None = None,
    conditionings: Callable[[], Sequence[str | None]] | None = None,
) -> tuple[ScoreBatch, str]:
    """Scores of these images, and a hint for the user (empty when there is nothing to say).

    ``check`` sees what the scores will mean before any image is scored, and may raise. ``conditionings`` makes hashes
    for the history, where no prompt is known; it is asked only when the history is on.

    Raises:
        BadInput: both a scorer and scores, something else than these, or scores of other images.
    """
    given, chosen = merged_scores(scores), one(scorer, "scorer")
    texts = None if prompts is None else one_per_image(prompts, len(images), "prompts")
    numbers = seeds_at_door(seeds, len(images))
    if given is not None and chosen is not None:
        raise BadInput("a scorer or scores", "both", "Disconnect one: scores are used as they are.")
    if given is not None and len(given) != len(images):
        raise BadInput(
            f"{len(images)} scores, one per image", str(len(given)), "Connect the scores of these very images."
        )
    if chosen is not None and not isinstance(chosen, Scorer):
        raise BadInput("a scorer (LC_SCORER)", type(chosen).__name__, "Connect one of Latent Critic's scorer nodes.")
    hint = HINT_JUDGE if given is None and chosen is None else ""
    source = given or chosen or judge()
    if check is not None:
        check(source.spec)
    batch = source if isinstance(source, ScoreBatch) else _score(source, images, texts)
    batch = batch if numbers is None else batch.with_seeds(numbers)
    return (batch if given else remember(images, batch, texts, conditionings)), hint


def _score(scorer: Scorer, images: Stack, prompts: Sequence[str] | None) -> ScoreBatch:
    watch = watch_in_comfyui(len(images))
    watch(0, len(images))
    return scorer.score(images.channels_first(), prompts, watch=watch)


def merged_scores(scores: Sequence[Any] | None) -> ScoreBatch | None:
    """LC_SCORES input, several lists joined in order; ``None`` when nothing is connected.

    Raises:
        BadInput: not scores, or scores of different scorers.
    """
    if not scores:
        return None
    for batch in scores:
        if not isinstance(batch, ScoreBatch):
            raise BadInput("scores (LC_SCORES)", type(batch).__name__, "Connect the scores of a Latent Critic node.")
        if batch.spec != scores[0].spec:
            raise BadInput(
                "scores of one scorer",
                f"{scores[0].spec.name} and {batch.spec.name} with different settings",
                "Score all images with the same scorer; Blend Scorers mixes several.",
            )
    return replace(scores[0], scores=tuple(score for batch in scores for score in batch))


def with_names(batch: ScoreBatch, names: Sequence[Any] | None) -> ScoreBatch:
    """The same scores, each with its picture's name."""
    texts = texts_at_door(names, len(batch), "names")
    if texts is None:
        return batch
    spread = one_per_image(texts, len(batch), "names")
    named = (
        replace(score, attributes={**score.attributes, "name": name}) for score, name in zip(batch, spread, strict=True)
    )
    return replace(batch, scores=tuple(named))
