"""Score a rated set and measure the agreement with its ratings; every run on a test set is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.rated import RatedImage, RatedSet
from ..errors import BadInput, UnreadableFile
from ..files import write_text
from ..images import load_image
from .agreement import agreement

if TYPE_CHECKING:
    from torch import Tensor

    from ..methods.contract import Scorer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """What to measure.

    Attributes:
        data: The rated pictures, already cut to the part to report on.
        split: The part's name: ``train``, ``test`` or ``all``.
        scorers: Whom to measure.
        resamples: Bootstrap samples behind the interval.
        seed: Draws them.
        log: A JSONL file that gets one line per run on anything but the training part; ``None`` for no log.
        batch: Pictures loaded at a time.
    """

    data: RatedSet
    split: str
    scorers: Sequence[Scorer]
    resamples: int = 1000
    seed: int = 0
    log: Path | None = None
    batch: int = 16


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One scorer on one set; the measures are those of :class:`~.agreement.Agreement`.

    Attributes:
        backbone: Fingerprint of the diffusion model, when the scorer uses one.
        n: Pictures with a score.
        missing: Pictures without one; they are left out of the measures.
    """

    data: str
    split: str
    scorer: str
    backbone: str | None
    n: int
    missing: int
    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    krcc: float
    rmse: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def run_benchmark(request: BenchmarkRequest, watch: Callable[[int, int], None] | None = None) -> list[BenchmarkRow]:
    """One row per scorer. Pictures are streamed: memory does not grow with the set. One that cannot be read is missing.

    Args:
        request: What to measure.
        watch: Called with (pictures scored, pictures in all) over all scorers; may raise to stop.

    Raises:
        BadInput: no scorer, or too few scores for an agreement.
    """
    if not request.scorers:
        raise BadInput("at least one scorer", "none", "Name one, such as judge.")
    rows = []
    total = len(request.data.images) * len(request.scorers)
    for number, scorer in enumerate(request.scorers):
        done = number * len(request.data.images)
        row = _measure(request, scorer, lambda n, done=done: None if watch is None else watch(done + n, total))
        rows.append(row)
        if request.log is not None and request.split != "train":
            log_run(request.log, row, scorer)
    return rows


def _measure(request: BenchmarkRequest, scorer: Scorer, step: Callable[[int], object]) -> BenchmarkRow:
    sign = 1.0 if scorer.spec.direction == "higher" else -1.0
    scores, ratings, done = [], [], 0
    for part in _parts(request.data.images, request.batch):
        read = [(image, pixels) for image in part if (pixels := _pixels(image)) is not None]
        given = scorer.score([pixels for _, pixels in read]) if read else ()
        for (image, _), score in zip(read, given, strict=True):
            if score.value is not None:
                scores.append(sign * score.value)
                ratings.append(image.mos)
        done += len(part)
        step(done)
    found = agreement(scores, ratings, resamples=request.resamples, seed=request.seed)
    return BenchmarkRow(
        data=request.data.name,
        split=request.split,
        scorer=scorer.spec.name,
        backbone=scorer.spec.backbone,
        missing=len(request.data.images) - len(scores),
        **found.to_dict(),  # type: ignore[arg-type]
    )


def _pixels(image: RatedImage) -> Tensor | None:
    try:
        return load_image(image.path)
    except UnreadableFile as error:
        _log.warning("%s cannot be read and is left out: %s", image.path, error.got)
        return None


def _parts(images: Sequence[RatedImage], size: int) -> Iterator[Sequence[RatedImage]]:
    return (images[start : start + size] for start in range(0, len(images), size))


def log_run(path: Path, row: BenchmarkRow, scorer: Scorer) -> None:
    """Append one run to the log of test runs: when, what, with which settings, and what came out."""
    line = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **row.to_dict(),
        "settings": dict(scorer.spec.settings),
    }
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, before + json.dumps(line) + "\n")
