"""Which part of lgdm carries its agreement with people: one thing varied at a time, on one split of one training set.

No test set is looked at. Every cell's head is fitted to the same training pictures and scores the same validation
pictures, which were cut off by content; differences to the base are paired, drawn over contents, and told whatever
their sign.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.split import split_by_group
from ..errors import BadInput
from ..fitting.rated import Rows, meta_of, rows_of
from ..heads.fit import fit_head
from ..heads.head import Head
from ..methods.feature_cache import FeatureCache
from ..methods.hyperfeature_options import HyperfeatureOptions
from ..methods.hyperfeatures import Hyperfeatures
from .ablate_cells import Cell, base_cell, cells
from .ablate_records import Ablation, AblationRequest, AblationRow
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
