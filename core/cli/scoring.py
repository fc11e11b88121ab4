"""Files → scores: found, read a little ahead, scored in batches, journalled; then written out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from ..image_files import LoadedImage, batches, find_images, stream_images
from ..memory import is_out_of_memory
from ..records import Score, ScoreBatch
from .journal import FileStamp, Journal
from .scorers import OnModel, load_scorer, restorations_in

if TYPE_CHECKING:
    from ..methods.contract import Scorer


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What to score and with what.

    Attributes:
        inputs: Pictures, folders and patterns.
        list_file: A file with further paths, or ``-``.
        scorer: Registry name.
        device: ``auto``, ``cpu``, ``cuda`` …
        batch: Images at once, ≥ 1; changes no score.
        weights: A judge's file, or ``None`` for the shipped one.
        resume: The journal, or ``None`` for none.
        leave_out: Files, and folders with all that is in them, that are not scored: what this command itself writes.
        policy: How many views the judge looks at, ``full`` or ``fast``.
        on_model: Head and model of a scorer that needs them.
    """

    inputs: tuple[str, ...]
    list_file: str | None = None
    scorer: str = "judge"
    device: str = "auto"
    batch: int = 8
    resume: str | None = None
    leave_out: tuple[Path, ...] = ()
    weights: str | None = None
    policy: str = "full"
    on_model: OnModel | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise BadInput("--batch of at least 1", str(self.batch), "Raise it.")

    @classmethod
    def of(cls, arguments: Any, leave_out: tuple[Path, ...] = ()) -> ScoreRequest:
        """From parsed arguments."""
        return cls(
            inputs=tuple(arguments.inputs),
            list_file=arguments.list_file,
            scorer=arguments.scorer,
            device=arguments.device,
            batch=arguments.batch,
            resume=arguments.resume,
            leave_out=leave_out,
            weights=arguments.weights,
            policy=arguments.policy,
            on_model=OnModel(
                head=None if arguments.head is None else Path(arguments.head),
                restorer=None if arguments.restorer is None else Path(arguments.restorer),
                model=arguments.model,
                checkpoint=arguments.checkpoint,
                device=arguments.device,
                restorations=restorations_in(arguments.restorations),
            ),
        )


def score_files(request: ScoreRequest) -> ScoreBatch:
    """Score every picture of a request, in the order in which they were found.

    Each score's ``index`` is the picture's place in that order, and its attribute ``path`` the file. A file that
    cannot be read or scored has a reason. Memory holds one batch and a few decoded pictures, however many there are.
    """
    locked: list[Path] = []
    paths = find_images(request.inputs, request.list_file, locked.append)
    # A folder that may not be read is a failure with a reason, like a picture that may not.
    paths += locked
    if request.leave_out:
        paths = _outside(paths, request.leave_out)
    scorer = load_scorer(request.scorer, request.device, request.weights, request.policy, request.on_model)
    with ExitStack() as stack:
        stamps = [FileStamp.of(path) for path in paths]
        journal = stack.enter_context(Journal(request.resume, scorer.spec)) if request.resume else None
        known = [journal.value(stamp) if journal else None for stamp in stamps]
        found = {
            place: _named(Score(value, place), paths[place]) for place, value in enumerate(known) if value is not None
        }
        todo = [place for place in range(len(paths)) if place not in found]
        tick = stack.enter_context(_progress(len(paths), len(found)))
        for scores in _score_all(scorer, [paths[place] for place in todo], request.batch):
            for score in scores:
                place = todo[score.index]
                found[place] = _named(replace(score, index=place), paths[place])
            if journal:
                journal.add((stamps[todo[score.index]], score) for score in scores)
            tick(len(scores))
    return ScoreBatch(scorer.spec, tuple(found[place] for place in range(len(paths))))


def _outside(paths: Sequence[Path], left_out: Sequence[Path]) -> list[Path]:
    # realpath, since Path.resolve raises on a link that leads to itself.
    own = {Path(os.path.realpath(path)) for path in left_out}
    places = [Path(os.path.realpath(path)) for path in paths]
    found = [path for path, at in zip(paths, places, strict=True) if at not in own and own.isdisjoint(at.parents)]
    if not found:
        names = " and ".join(str(path) for path in left_out)
        raise BadInput(f"pictures outside {names}", "none", "That is where this command itself writes.")
    return found


def _named(score: Score, path: Path) -> Score:
    return replace(score, attributes={**score.attributes, "path": str(path)})


def _score_all(scorer: Scorer, paths: Sequence[Path], batch: int) -> Iterator[list[Score]]:
    with _quiet_about_size():
        for group in batches(stream_images(paths), batch):
            yield sorted(_score_group(scorer, group), key=lambda score: score.index)
            group.clear()


def _score_group(scorer: Scorer, group: list[LoadedImage]) -> Iterator[Score]:
    images = [item.image for item in group if item.image is not None]
    places = [item.index for item in group if item.image is not None]
    yield from (Score(None, item.index, reason=item.reason or "unreadable") for item in group if item.image is None)
    for place, score in zip(places, _within_memory(scorer, images), strict=True):
        yield replace(score, index=place)


def _within_memory(scorer: Scorer, images: list[Any]) -> list[Score]:
    """Score at once, or in halves when memory does not suffice; one image that is too much alone gets a reason."""
    if not images:
        return []
    try:
        return list(scorer.score(images))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(images) == 1:
            return [Score(None, 0, reason=f"out of memory: {error}")]
    middle = len(images) // 2
    return _within_memory(scorer, images[:middle]) + _within_memory(scorer, images[middle:])


@contextmanager
def _quiet_about_size() -> Iterator[None]:
    """Pillow warns of pictures beyond 89 million pixels; they are scored like any other."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _progress(total: int, before: int) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    # disable=None: no bar where standard error is a file or a pipe.
    with tqdm(total=total, initial=before, unit="image", file=sys.stderr, disable=None, leave=False) as bar:
        yield bar.update
