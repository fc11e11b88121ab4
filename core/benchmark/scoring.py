"""Pictures in, one scorer's values out: streamed, stored as they come, and metered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..data.rated import RatedImage
from ..errors import UnreadableFile
from ..images import load_image
from ..records import Score, ScoreSpec
from .costs import Costs, Meter

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods.contract import Scorer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to score.

    Attributes:
        path: The file behind it.
        mark: What was made of the file, such as a kind and level of damage; empty for the file as it is.
        pixels: Gives the picture [3, H, W]; raises ``UnreadableFile``.
        prompt: What it was generated from, where that is known.
    """

    path: Path
    mark: str
    pixels: Callable[[], Tensor]
    prompt: str | None = None

    @classmethod
    def of(cls, image: RatedImage) -> Item:
        """A rated picture as it is."""
        return cls(image.path, "", lambda: load_image(image.path), image.prompt)


class ScoreStore(Protocol):
    """Where scores are kept as they come, so that a killed run goes on where it was."""

    def value(self, path: Path, mark: str) -> float | None:
        """The score of this very picture by an earlier run; ``None`` when it is to be scored."""
        ...

    def add(self, found: Iterable[tuple[Path, str, Score]]) -> None:
        """Keep these, on the disk."""
        ...


Stores: TypeAlias = Callable[[ScoreSpec], AbstractContextManager[ScoreStore]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A scorer and what can be asked beyond its scores.

    Attributes:
        scorer: The scorer.
        calls: Rows that went through its denoiser so far; ``None`` for a scorer without a diffusion model.
        reseeded: The same scorer with other noise draws, by their seed; ``None`` for a scorer that draws nothing.
    """

    scorer: Scorer
    calls: Callable[[], int] | None = None
    reseeded: Callable[[int], Scorer] | None = None

    @property
    def spec(self) -> ScoreSpec:
        """What its numbers mean."""
        return self.scorer.spec


@dataclass(frozen=True, slots=True)
class Scored:
    """One scorer's values, turned so that higher is better, ``None`` where a picture got none; and what they cost."""

    spec: ScoreSpec
    values: tuple[float | None, ...]
    costs: Costs


def score_items(
    items: Sequence[Item],
    contestant: Contestant,
    batch: int,
    *,
    stores: Stores | None = None,
    step: Callable[[int], object] = lambda done: None,
) -> Scored:
    """Score in order, ``batch`` pictures in memory at a time. Pictures that cannot be read get no value.

    Args:
        items: What to score.
        contestant: Who scores.
        batch: Pictures read at a time.
        stores: Opens the store of a scorer's values; what it holds is not scored again.
        step: Called with the pictures done; may raise to stop.
    """
    sign = 1.0 if contestant.spec.direction == "higher" else -1.0
    found: list[float | None] = []
    meter = Meter(contestant.calls)
    with stores(contestant.spec) if stores else nullcontext() as store:
        for part in _parts(items, batch):
            values = [store.value(item.path, item.mark) if store else None for item in part]
            fresh = [place for place, value in enumerate(values) if value is None]
            scores = _score([part[place] for place in fresh], contestant.scorer, meter)
            for place, score in zip(fresh, scores, strict=True):
                values[place] = None if score is None else score.value
            if store:
                kept = zip((part[place] for place in fresh), scores, strict=True)
                store.add([(item.path, item.mark, score) for item, score in kept if score is not None])
            found += [None if value is None else sign * value for value in values]
            step(len(found))
    return Scored(contestant.spec, tuple(found), meter.costs)


def _score(items: Sequence[Item], scorer: Scorer, meter: Meter) -> list[Score | None]:
    read = [(place, pixels) for place, item in enumerate(items) if (pixels := _pixels(item)) is not None]
    found: list[Score | None] = [None] * len(items)
    if read:
        texts = [items[place].prompt for place, _ in read]
        prompts = [text or "" for text in texts] if all(text is not None for text in texts) else None
        with meter.measure(len(read)):
            batch = scorer.score([pixels for _, pixels in read], prompts)
        for (place, _), score in zip(read, batch, strict=True):
            found[place] = score
    return found


def _pixels(item: Item) -> Tensor | None:
    try:
        return item.pixels()
    except UnreadableFile as error:
        _log.warning("%s cannot be read and is left out: %s", item.path, error.got)
        return None


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
