"""Which part of lgdm carries its agreement with people: one thing varied at a time, on one split of one training set.

No test set is looked at. Every cell's head is fitted to the same training pictures and scores the same validation
pictures, which were cut off by content; differences to the base are paired, drawn over contents, and told whatever
their sign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.split import split_by_group
from ..errors import BadInput
from ..fitting.pictures import Pictures
from ..fitting.rated import Rows, meta_of, rows_of
from ..heads.fit import fit_head
from ..heads.head import Head
from ..methods.feature_cache import FeatureCache
from ..methods.hyperfeature_options import HyperfeatureOptions
from ..methods.hyperfeatures import Hyperfeatures
from .ablate_cells import FREE, GROUPS, Cell, base_cell, cells
from .agreement import agreement
from .significance import compare

if TYPE_CHECKING:
    from ..backbone.contracts import Backbone
    from ..perceptual.contract import Psi

#: psi by name for a backbone; ``None`` for none.
MakePsi = Callable[[str | None], "Psi | None"]
Watch = Callable[[str, int, int], None]
#: Draws of the split: contents are large where pictures are few.
_SPLITS = 20


@dataclass(frozen=True, slots=True)
class AblationRequest:
    """What to compare, on what.

    Attributes:
        pictures: Rated ones of a training split, with content groups.
        validation: How many to hold back for comparison, about.
        base: The setting to start from.
        groups: Groups of cells out of :data:`~.ablate_cells.GROUPS`.
        draws: Noise draws behind the spread, with ``noise`` among the groups.
        cache: Folder for features; a stopped run goes on from there.
        seed: Of the split.
        resamples: Bootstrap samples behind the intervals.
    """

    pictures: Pictures
    validation: int
    base: HyperfeatureOptions
    groups: tuple[str, ...] = FREE
    draws: int = 3
    cache: Path | None = None
    seed: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.pictures.ratings is None:
            raise BadInput("rated pictures", "pictures without ratings", "Name a rated set.")
        if not 3 <= self.validation < len(self.pictures):
            raise BadInput(
                f"3 to {len(self.pictures) - 1} validation pictures",
                str(self.validation),
                "Take fewer, or more in all.",
            )
        unknown = [name for name in self.groups if name not in GROUPS]
        if unknown or self.draws < 2:
            got = f"{', '.join(unknown)}; {self.draws} draws"
            raise BadInput(f"groups out of {', '.join(GROUPS)}, and at least 2 draws", got, "Leave them out.")


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One cell on the validation pictures.

    Attributes:
        group: What is varied.
        cell: To what.
        train: Pictures that its head was fitted to.
        n: Validation pictures that it scored.
        srcc: Agreement there, with its 95 % bootstrap interval over contents.
        srcc_low: Lower end.
        srcc_high: Upper end.
        plcc: Pearson's correlation.
        difference: SRCC less the base's, on the same pictures.
        difference_low: Lower end of its 95 % interval, paired.
        difference_high: Upper end.
        p: Two-sided bootstrap p value of the difference; not adjusted for the number of cells.
        features: Features that the head reads.
        seconds: Time per picture and pass; ``None`` where features came from the cache or another cell.
        chosen: What cross-validation chose inside the training pictures.
    """

    group: str
    cell: str
    train: int
    n: int
    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    difference: float
    difference_low: float
    difference_high: float
    p: float
    features: int
    seconds: float | None
    chosen: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ablation:
    """Every row, and the spread over noise draws (in standard deviations of the scores over pictures) when asked."""

    rows: list[AblationRow]
    noise: dict[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)


def run_ablation(
    request: AblationRequest,
    backbone: Backbone,
    make_psi: MakePsi,
    watch: Watch | None = None,
    keep: Callable[[Ablation], None] | None = None,
) -> Ablation:
    """Extract, fit and compare every cell.

    Args:
        request: What to compare, on what.
        backbone: The model.
        make_psi: Gives the perceptual term's features by name.
        watch: Told of the work; may raise to stop.
        keep: Given what there is after each pass, so that a stopped run leaves something.

    Raises:
        BadInput: too few pictures for a fit.
    """
    return _Study(request, backbone, make_psi, watch).run(keep)


def _split(request: AblationRequest) -> tuple[list[int], list[int]]:
    """Whole contents on either side; of a few draws the one whose validation part is nearest to what was asked."""
    share = request.validation / len(request.pictures)
    seeds = range(request.seed * _SPLITS, (request.seed + 1) * _SPLITS)
    drawn = [split_by_group(request.pictures.groups, share, seed) for seed in seeds]
    return min(drawn, key=lambda parts: abs(len(parts[1]) - request.validation))


@dataclass(frozen=True, slots=True)
class _Pass:
    """Features of all pictures under one setting."""

    features: Hyperfeatures
    rows: Rows
    seconds: float | None


class _Study:
    def __init__(self, request: AblationRequest, backbone: Backbone, make_psi: MakePsi, watch: Watch | None) -> None:
        self._request, self._backbone, self._make_psi, self._watch = request, backbone, make_psi, watch
        kept, held = _split(request)
        self._train, self._held = set(kept), held
        self._passes: dict[str, _Pass] = {}
        self._base: dict[int, float] = {}

    def run(self, keep: Callable[[Ablation], None] | None) -> Ablation:
        found = Ablation([])
        taps = self._request.base.of(self._backbone.family.taps)
        for cell in cells(self._request.base, self._request.groups, taps):
            try:
                found.rows.append(self._row(cell))
            except BadInput as error:
                if cell.group == "base":
                    raise
                found.failed[f"{cell.group}: {cell.name}"] = str(error)
            if keep is not None:
                keep(found)
        if "noise" in self._request.groups:
            found = replace(found, noise=self._noise())
        if keep is not None:
            keep(found)
        return found

    def _pass(self, options: HyperfeatureOptions) -> _Pass:
        """The features of all pictures, each setting once."""
        key = repr(options.to_dict())
        if key not in self._passes:
            features = self._features(options)
            start = time.perf_counter()
            rows = rows_of(features, self._request.pictures, self._cache(features), self._named(options))
            taken = (time.perf_counter() - start) / len(self._request.pictures)
            if len(self._passes) > 1:
                # The base's pass is used again and again; of the others one at a time is enough.
                del self._passes[list(self._passes)[-1]]
            self._passes[key] = _Pass(features, rows, taken)
        return self._passes[key]

    def _features(self, options: HyperfeatureOptions) -> Hyperfeatures:
        wanted = options.kind == "guided_path" and options.guidance.zeta2 > 0.0
        return Hyperfeatures(self._backbone, options, self._make_psi(options.psi) if wanted else None)

    def _cache(self, features: Hyperfeatures) -> FeatureCache | None:
        return None if self._request.cache is None else FeatureCache.of(self._request.cache, features)

    def _named(self, options: HyperfeatureOptions) -> Watch | None:
        watch = self._watch
        if watch is None:
            return None
        zetas = f"{options.guidance.zeta1:g}, {options.guidance.zeta2:g}"
        words = options.kind if options.kind == "single_level" else f"zetas {zetas}, psi {options.psi}"
        return lambda what, done, total: watch(f"{what} ({words})", done, total)

    def _row(self, cell: Cell) -> AblationRow:
        fresh = repr(cell.options.to_dict()) not in self._passes
        part = self._pass(cell.options)
        head, chosen, train = self._fitted(cell, part)
        layout, columns = part.features.layout.select(cell.keep)
        places = [row for row, place in enumerate(part.rows.places) if place not in self._train]
        scores = head.predict(part.rows.features[places][:, columns]).value.tolist()
        of_place = {part.rows.places[row]: score for row, score in zip(places, scores, strict=True)}
        if cell.group == "base":
            self._base = of_place
        shared = [place for place in of_place if place in self._base]
        ratings = self._ratings(shared)
        groups = [self._request.pictures.groups[place] for place in shared]
        mine, base = [of_place[place] for place in shared], [self._base[place] for place in shared]
        told = agreement(mine, ratings, groups, resamples=self._request.resamples)
        apart = compare(mine, base, ratings, groups, resamples=self._request.resamples)
        return AblationRow(
            cell.group,
            cell.name,
            train,
            len(shared),
            told.srcc,
            told.srcc_low,
            told.srcc_high,
            told.plcc,
            apart.difference,
            apart.low,
            apart.high,
            apart.p,
            layout.size,
            part.seconds if fresh else None,
            chosen,
        )

    def _ratings(self, places: Sequence[int]) -> list[float]:
        assert self._request.pictures.ratings is not None
        return [self._request.pictures.ratings[place] for place in places]

    def _fitted(self, cell: Cell, part: _Pass) -> tuple[Head, dict[str, Any], int]:
        layout, columns = part.features.layout.select(cell.keep)
        rows = [row for row, place in enumerate(part.rows.places) if place in self._train]
        places = [part.rows.places[row] for row in rows]
        fitted = fit_head(
            part.rows.features[rows][:, columns],
            torch.tensor(self._ratings(places), dtype=torch.float64),
            [self._request.pictures.groups[place] for place in places],
            layout,
            meta_of(part.features, self._request.pictures, "ratings"),
            cell.fit,
        )
        return fitted.head, dict(fitted.report.chosen), len(rows)

    def _noise(self) -> dict[str, Any]:
        """The base's head on validation features of other noise: how far scores move, and how agreement does."""
        base = base_cell(self._request.base)
        part = self._pass(base.options)
        head, _, _ = self._fitted(base, part)
        _, columns = part.features.layout.select(base.keep)
        held = self._request.pictures.take(self._held)
        draws: list[dict[int, float]] = []
        for draw in range(1, self._request.draws + 1):
            guidance = replace(base.options.guidance, seed=1000 * draw)
            features = self._features(replace(base.options, guidance=guidance))
            rows = rows_of(features, held, self._cache(features), self._named(base.options))
            values = head.predict(rows.features[:, columns]).value.tolist()
            draws.append(dict(zip(rows.places, values, strict=True)))
        return _spread(draws, self._ratings(self._held))


def _spread(draws: Sequence[dict[int, float]], ratings: Sequence[float]) -> dict[str, Any]:
    places = [place for place in draws[0] if all(place in draw for draw in draws)]
    values = np.array([[draw[place] for place in places] for draw in draws])
    within = float(np.sqrt(values.var(axis=0, ddof=1).mean()))
    between = float(values.mean(axis=0).std(ddof=1))
    known: Tensor = torch.tensor([ratings[place] for place in places])
    found = [agreement(row.tolist(), known.tolist(), resamples=200).srcc for row in values]
    mean = agreement(values.mean(axis=0).tolist(), known.tolist(), resamples=200).srcc
    return {
        "draws": len(draws),
        "pictures": len(places),
        "spread": within / between if between > 0.0 else None,
        "spread_in_points": within,
        "srcc_of_each_draw": found,
        "srcc_of_the_mean": mean,
    }
