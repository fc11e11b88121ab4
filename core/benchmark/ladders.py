"""Does a score fall with damage that training never saw? Held-out ladders as a data set of the benchmark.

Each picture is damaged in every held-out kind at five growing severities. A step from one severity to the next counts
when structural similarity to the untouched picture falls by 0.02 or more; the share of counted steps in which the score
falls is the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..data.held_out import HELD_OUT_KINDS, HELD_OUT_SEVERITIES, held_out_damage
from ..data.similarity import VISIBLE, ssim
from ..errors import BadInput
from ..images import load_image
from .agreement import spearman
from .bootstrap import bootstrap_interval, bootstrap_places
from .costs import Costs
from .kept_costs import costs_of
from .noise import noise_spread
from .runner import BenchmarkRequest, log_run
from .scoring import Contestant, Item, Scored, score_items
from .significance import holm, two_sided

SIDE = 512
DATA = "ladders"
_SPLIT = "held out"


@dataclass(frozen=True, slots=True)
class Rung:
    """One picture at one severity of one kind; severity 0 is the untouched picture, its kind empty."""

    picture: Path
    kind: str
    severity: int


@dataclass(frozen=True, slots=True)
class LadderRow:
    """One scorer on the ladders.

    Attributes:
        scorer: The scorer's name.
        backbone: Fingerprint of the diffusion model, when the scorer uses one.
        n: Counted steps.
        missing: Pictures and damaged forms of them without a score.
        falls: Counted steps in which the score fell.
        share: Of the counted steps, with its 95 % bootstrap interval over pictures (low, high).
        srcc: Spearman's correlation of a ladder's scores with less damage, averaged over ladders; with its interval.
        content_spread: How far scores of different pictures lie apart at one kind and severity, over how far all
            scores of the ladders do: 0 when only damage counts, 1 when it does not count at all.
        kinds: Falls and counted steps of each kind.
        versus: Against the scorer that the others are compared with: difference of the shares and its p values.
    """

    scorer: str
    backbone: str | None
    n: int
    missing: int
    falls: int
    share: tuple[float, float, float]
    srcc: tuple[float, float, float]
    content_spread: float | None
    kinds: dict[str, dict[str, float]]
    costs: Costs = field(default_factory=Costs)
    noise_spread: float | None = None
    versus: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what only ratings can give is ``None``."""
        share, share_low, share_high = self.share
        srcc, srcc_low, srcc_high = self.srcc
        return {
            "data": DATA,
            "split": _SPLIT,
            "scorer": self.scorer,
            "backbone": self.backbone,
            "missing": self.missing,
            "srcc": srcc,
            "srcc_low": srcc_low,
            "srcc_high": srcc_high,
            "plcc": None,
            "krcc": None,
            "rmse": None,
            "n": self.n,
            "falls": self.falls,
            "share": share,
            "share_low": share_low,
            "share_high": share_high,
            "content_spread": self.content_spread,
            **self.costs.to_dict(),
            "noise_spread": self.noise_spread,
            **self.versus,
            "kinds": self.kinds,
        }


def run_ladders(
    pictures: Sequence[Path], request: BenchmarkRequest, watch: Callable[[int, int], None] | None = None
) -> list[LadderRow]:
    """One row per scorer. Damaged pictures are made in memory as they are needed.

    Args:
        pictures: Good pictures; what is larger than 512 px is cut to its centre.
        request: Whom to measure, and how; its data and split are not looked at.
        watch: Called with (rungs scored, rungs in all) over all scorers; may raise to stop.

    Raises:
        BadInput: no pictures, no scorer, or no step that counts.
        UnreadableFile: a picture cannot be read.
        MissingDependency: scikit-image is not installed.
    """
    contestants = request.contestants
    if not contestants or not pictures:
        raise BadInput("pictures and a scorer", f"{len(pictures)} pictures, {len(contestants)} scorers", "Name both.")
    rungs = _rungs(pictures)
    similar = _similarities(rungs)
    items = [Item(rung.picture, _mark(rung), partial(_pixels, rung)) for rung in rungs]
    total = len(items) * len(contestants)
    rows, tables = [], []
    for number, contestant in enumerate(contestants):
        start = number * len(items)
        step = (lambda done: None) if watch is None else (lambda done, start=start: watch(start + done, total))
        found = score_items(items, contestant, request.batch, stores=request.stores, step=step)
        tables.append(_table(rungs, similar, found))
        rows.append(_row(request, contestant, found, items, tables[-1], rungs))
    rows = _compared(request, rows, tables)
    if request.log is not None:
        for row, contestant in zip(rows, contestants, strict=True):
            log_run(request.log, row.to_dict(), contestant.spec)
    return rows


def _rungs(pictures: Sequence[Path]) -> list[Rung]:
    return [
        rung
        for picture in pictures
        for rung in (
            Rung(picture, "", 0),
            *(Rung(picture, kind, severity) for kind in HELD_OUT_KINDS for severity in HELD_OUT_SEVERITIES),
        )
    ]


def _mark(rung: Rung) -> str:
    return f"held out {rung.kind} {rung.severity}, {SIDE} px"


def _pixels(rung: Rung) -> Tensor:
    image = load_image(rung.picture)
    height, width = image.shape[1:]
    top, left = max(height - SIDE, 0) // 2, max(width - SIDE, 0) // 2
    image = image[:, top : top + SIDE, left : left + SIDE]
    # The seed is the picture's own, whatever its place: a longer list damages it no other way.
    seed = sum(rung.picture.name.encode())
    return held_out_damage(image, rung.kind, rung.severity, seed) if rung.kind else image


def _similarities(rungs: Sequence[Rung]) -> list[float]:
    found, clean = [], None
    for rung in rungs:
        pixels = _pixels(rung)
        if not rung.kind:
            clean = pixels
        found.append(1.0 if clean is None or not rung.kind else ssim(clean, pixels))
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    picture: Path
    kind: str
    fell: bool


def _table(rungs: Sequence[Rung], similar: Sequence[float], scored: Scored) -> list[_Step]:
    """The steps that count, of ladders whose scores are all there."""
    found = []
    clean: tuple[float, float | None] = (1.0, None)
    before = clean
    for rung, similarity, value in zip(rungs, similar, scored.values, strict=True):
        now = (similarity, value)
        if rung.severity <= 1:
            clean = now if rung.severity == 0 else clean
            before = clean
        if rung.severity and before[1] is not None and value is not None and before[0] - similarity >= VISIBLE:
            found.append(_Step(rung.picture, rung.kind, value < before[1]))
        before = now
    return found


def _row(
    request: BenchmarkRequest,
    contestant: Contestant,
    scored: Scored,
    items: Sequence[Item],
    steps: list[_Step],
    rungs: Sequence[Rung],
) -> LadderRow:
    if not steps:
        raise BadInput("steps of visible damage", "none that got scores", "Give larger pictures, or other ones.")
    fell = np.array([step.fell for step in steps], dtype=np.float64)
    low, high = bootstrap_interval(
        lambda places: float(fell[places].mean()),
        len(steps),
        [step.picture for step in steps],
        resamples=request.resamples,
        seed=request.seed,
    )
    kinds = {kind: [step.fell for step in steps if step.kind == kind] for kind in HELD_OUT_KINDS}
    return LadderRow(
        scorer=contestant.spec.name,
        backbone=contestant.spec.backbone,
        n=len(steps),
        missing=sum(value is None for value in scored.values),
        falls=int(fell.sum()),
        share=(float(fell.mean()), low, high),
        srcc=_order(request, rungs, scored),
        content_spread=_content_spread(rungs, scored),
        kinds={kind: {"falls": sum(found), "n": len(found)} for kind, found in kinds.items() if found},
        costs=costs_of(scored, DATA, _SPLIT, request.log),
        noise_spread=noise_spread(items, contestant, draws=request.draws) if request.draws else None,
    )


def _order(request: BenchmarkRequest, rungs: Sequence[Rung], scored: Scored) -> tuple[float, float, float]:
    """Mean over whole ladders of the rank correlation of score and undamagedness, with its interval over pictures."""
    values: dict[tuple[Path, str], list[float | None]] = {}
    clean: dict[Path, float | None] = {}
    for rung, value in zip(rungs, scored.values, strict=True):
        if rung.kind:
            values.setdefault((rung.picture, rung.kind), [clean[rung.picture]]).append(value)
        else:
            clean[rung.picture] = value
    order = np.arange(len(HELD_OUT_SEVERITIES) + 1, 0, -1, dtype=np.float64)
    whole = {key: np.array(ladder, dtype=np.float64) for key, ladder in values.items() if None not in ladder}
    # A score that does not move at all does not follow the damage: 0, not undefined.
    each = np.array([spearman(ladder, order) if np.ptp(ladder) > 0 else 0.0 for ladder in whole.values()])
    if not len(each):
        raise BadInput("a ladder whose pictures all got scores", "none", "See the reasons in the log.")
    names = [picture for picture, _ in whole]
    low, high = bootstrap_interval(
        lambda places: float(each[places].mean()), len(each), names, resamples=request.resamples, seed=request.seed
    )
    return float(each.mean()), low, high


def _content_spread(rungs: Sequence[Rung], scored: Scored) -> float | None:
    groups: dict[tuple[str, int], list[float]] = {}
    for rung, value in zip(rungs, scored.values, strict=True):
        if value is not None:
            groups.setdefault((rung.kind, rung.severity), []).append(value)
    within = [np.var(values) for values in groups.values() if len(values) > 1]
    overall = float(np.var([value for values in groups.values() for value in values]))
    return float(np.sqrt(np.mean(within) / overall)) if within and overall > 0 else None


def _compared(request: BenchmarkRequest, rows: list[LadderRow], tables: list[list[_Step]]) -> list[LadderRow]:
    """Difference of the shares against the judge (or the first), on the steps of pictures that both scored."""
    base = next((place for place, row in enumerate(rows) if row.scorer == "judge"), 0)
    found: dict[int, dict[str, Any]] = {}
    for place, steps in enumerate(tables):
        if place != base and len(steps) == len(tables[base]):
            ahead = np.array([a.fell - b.fell for a, b in zip(steps, tables[base], strict=True)], dtype=np.float64)
            names = [step.picture for step in steps]
            drawn = bootstrap_places(len(ahead), names, resamples=request.resamples, seed=request.seed)
            values = np.array([ahead[places].mean() for places in drawn])
            low, high = (float(end) for end in np.percentile(values, [2.5, 97.5]))
            found[place] = {
                "versus": rows[base].scorer,
                "difference": float(ahead.mean()),
                "difference_low": low,
                "difference_high": high,
                "difference_n": len(ahead),
                "p": two_sided(values),
            }
    adjusted = holm([versus["p"] for versus in found.values()])
    for versus, value in zip(found.values(), adjusted, strict=True):
        versus["p_holm"] = value
    return [replace(row, versus=found.get(place, {})) for place, row in enumerate(rows)]
