"""Score a rated set and measure the agreement with its ratings; every run on a test set is logged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.rated import RatedImage, RatedSet
from ..errors import BadInput
from ..files import write_text
from ..records import ScoreSpec
from .agreement import Agreement, agreement, spearman
from .costs import Costs
from .kept_costs import costs_of
from .noise import noise_spread
from .scoring import Contestant, Item, Scored, Stores, score_items
from .significance import Comparison, compare, holm

if TYPE_CHECKING:
    from ..methods.contract import Scorer

_LEAST_OF_A_KIND = 5


@dataclass(frozen=True, slots=True)
class BenchmarkRequest:
    """What to measure.

    Attributes:
        data: The rated pictures, already cut to the part to report on.
        split: The part's name: ``train``, ``validation``, ``test`` or ``all``.
        scorers: Whom to measure. The first one called ``judge``, or else the first, is what the others are compared
            with.
        resamples: Bootstrap samples behind intervals and p values.
        seed: Draws them.
        log: A JSONL file that gets one line per run on anything but the training part; ``None`` for no log.
        batch: Pictures loaded at a time.
        stores: Where values are kept as they come, so that a killed run goes on; ``None`` keeps nothing.
        draws: Noise draws behind the spread of a score; 0 leaves it out.
    """

    data: RatedSet
    split: str
    scorers: Sequence[Scorer | Contestant]
    resamples: int = 1000
    seed: int = 0
    log: Path | None = None
    batch: int = 16
    stores: Stores | None = None
    draws: int = 0

    @property
    def contestants(self) -> list[Contestant]:
        """The scorers, each with what can be asked beyond its scores."""
        return [scorer if isinstance(scorer, Contestant) else Contestant(scorer) for scorer in self.scorers]


@dataclass(frozen=True, slots=True)
class Versus:
    """A comparison, and with whom; the adjusted p value is set once all comparisons of a table are known."""

    scorer: str
    comparison: Comparison
    p_holm: float

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"versus": self.scorer, "p_holm": self.p_holm, **_prefixed(self.comparison)}


def _prefixed(comparison: Comparison) -> dict[str, float]:
    names = {"low": "difference_low", "high": "difference_high", "n": "difference_n"}
    return {names.get(name, name): value for name, value in comparison.to_dict().items()}


_NO_VERSUS = (
    "versus", "difference", "difference_low", "difference_high", "difference_n", "p", "p_holm", "p_williams",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One scorer on one set.

    Attributes:
        data: The set's name.
        split: The part.
        scorer: The scorer's name.
        backbone: Fingerprint of the diffusion model, when the scorer uses one.
        missing: Pictures without a score; they are left out of the measures.
        measures: Agreement with people.
        costs: What the scores cost.
        noise_spread: See :func:`~.noise.noise_spread`; ``None`` when it was not asked for.
        kinds: SRCC and pictures of each kind of damage or generator, where the set names any.
        versus: Against the scorer that the others are compared with.
    """

    data: str
    split: str
    scorer: str
    backbone: str | None
    missing: int
    measures: Agreement
    costs: Costs = field(default_factory=Costs)
    noise_spread: float | None = None
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    versus: Versus | None = None

    def __getattr__(self, name: str) -> Any:
        """The measures, as if they were the row's own."""
        if name in Agreement.__dataclass_fields__:
            return getattr(self.measures, name)
        raise AttributeError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON, flat but for ``kinds``."""
        return {
            "data": self.data,
            "split": self.split,
            "scorer": self.scorer,
            "backbone": self.backbone,
            "missing": self.missing,
            **self.measures.to_dict(),
            **self.costs.to_dict(),
            "noise_spread": self.noise_spread,
            **(dict.fromkeys(_NO_VERSUS) if self.versus is None else self.versus.to_dict()),
            "kinds": self.kinds,
        }


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """The rows, and the values behind them in the order of the set's pictures (for plots)."""

    data: RatedSet
    rows: tuple[BenchmarkRow, ...]
    scored: tuple[Scored, ...]


def run_benchmark(request: BenchmarkRequest, watch: Callable[[int, int], None] | None = None) -> list[BenchmarkRow]:
    """The rows of :func:`benchmark`."""
    return list(benchmark(request, watch).rows)


def benchmark(request: BenchmarkRequest, watch: Callable[[int, int], None] | None = None) -> BenchmarkReport:
    """One row per scorer. Pictures are streamed: memory does not grow with the set. One that cannot be read is missing.

    Args:
        request: What to measure.
        watch: Called with (pictures scored, pictures in all) over all scorers; may raise to stop.

    Raises:
        BadInput: no scorer, or too few scores for an agreement.
    """
    contestants = request.contestants
    if not contestants:
        raise BadInput("at least one scorer", "none", "Name one, such as judge.")
    items = [Item.of(image) for image in request.data.images]
    total = len(items) * len(contestants)
    rows, scored = [], []
    for number, contestant in enumerate(contestants):
        start = number * len(items)
        step = (lambda done: None) if watch is None else (lambda done, start=start: watch(start + done, total))
        found = score_items(items, contestant, request.batch, stores=request.stores, step=step)
        spread = noise_spread(items, contestant, draws=request.draws) if request.draws else None
        scored.append(found)
        rows.append(replace(_row(request, found), noise_spread=spread))
    rows = _compared(request, rows, scored)
    if request.log is not None and request.split != "train":
        for row, found in zip(rows, scored, strict=True):
            log_run(request.log, row.to_dict(), found.spec)
    return BenchmarkReport(request.data, tuple(rows), tuple(scored))


def _row(request: BenchmarkRequest, scored: Scored) -> BenchmarkRow:
    images = request.data.images
    pairs = [(value, image) for value, image in zip(scored.values, images, strict=True) if value is not None]
    measures = agreement(
        [value for value, _ in pairs],
        [image.mos for _, image in pairs],
        [image.group for _, image in pairs],
        resamples=request.resamples,
        seed=request.seed,
    )
    return BenchmarkRow(
        data=request.data.name,
        split=request.split,
        scorer=scored.spec.name,
        backbone=scored.spec.backbone,
        missing=len(images) - len(pairs),
        measures=measures,
        costs=costs_of(scored, request.data.name, request.split, request.log),
        kinds=_by_kind(pairs),
    )


def _by_kind(pairs: Sequence[tuple[float, RatedImage]]) -> dict[str, dict[str, float]]:
    """SRCC within each kind; kinds of very few pictures, or without any spread, are left out."""
    import numpy as np

    found = {}
    for kind in dict.fromkeys(image.kind for _, image in pairs if image.kind):
        x, y = np.array([(value, image.mos) for value, image in pairs if image.kind == kind]).T
        srcc = spearman(x, y)
        if len(x) >= _LEAST_OF_A_KIND and np.isfinite(srcc):
            found[kind] = {"srcc": srcc, "n": len(x)}
    return found


def _compared(request: BenchmarkRequest, rows: list[BenchmarkRow], scored: list[Scored]) -> list[BenchmarkRow]:
    base = next((place for place, row in enumerate(rows) if row.scorer == "judge"), 0)
    found = list(rows)
    for place, row in enumerate(rows):
        if place != base:
            both = [
                (a, b, image)
                for a, b, image in zip(scored[place].values, scored[base].values, request.data.images, strict=True)
                if a is not None and b is not None
            ]
            comparison = compare(
                [a for a, _, _ in both],
                [b for _, b, _ in both],
                [image.mos for *_, image in both],
                [image.group for *_, image in both],
                resamples=request.resamples,
                seed=request.seed,
            )
            found[place] = replace(row, versus=Versus(rows[base].scorer, comparison, comparison.p))
    return adjusted(found)


def adjusted(rows: Sequence[BenchmarkRow]) -> list[BenchmarkRow]:
    """The rows of one table, p values adjusted for the number of comparisons in it."""
    compared = [row.versus for row in rows if row.versus is not None]
    values = iter(holm([versus.comparison.p for versus in compared]))
    return [
        row if row.versus is None else replace(row, versus=replace(row.versus, p_holm=next(values))) for row in rows
    ]


def log_run(path: Path, row: dict[str, Any], spec: ScoreSpec) -> None:
    """Append one run to the log of test runs: when, what, with which settings, and what came out."""
    line = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **row,
        "settings": dict(spec.settings),
    }
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, before + json.dumps(line) + "\n")
