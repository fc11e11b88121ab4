"""Pictures of a benchmark: scores against ratings with the fitted curve, and agreement by kind of damage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependency
from ..files import whole_file
from .logistic import fit_logistic

if TYPE_CHECKING:
    from .ladders import LadderRow
    from .runner import BenchmarkReport, BenchmarkRow

_MOST_DOTS = 5000


def check_plots() -> None:
    """Refuse to plot before hours of scoring where matplotlib is missing.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        remedy = "pip install 'latent-critic[plots]', or leave --plots out."
        raise MissingDependency("matplotlib for --plots", "no module matplotlib", remedy) from error


def write_plots(folder: Path, reports: Sequence[BenchmarkReport], ladders: Sequence[LadderRow] = ()) -> list[Path]:
    """Every plot of a run as PNG; returns the files.

    Raises:
        MissingDependency: matplotlib is not installed.
        UnwritableFile: the folder takes no files.
    """
    check_plots()
    found = []
    for report in reports:
        for place, row in enumerate(report.rows):
            found.append(_save(_scatter(report, place), folder / f"{_name(row)}_scatter.png"))
        if any(row.kinds for row in report.rows):
            values = {row.scorer: {kind: one["srcc"] for kind, one in row.kinds.items()} for row in report.rows}
            figure = _bars(values, "SRCC", f"{report.data.name}: agreement within each kind")
            found.append(_save(figure, folder / f"{_name(report.rows[0], scorer=False)}_kinds.png"))
    if ladders:
        shares = {row.scorer: {kind: one["falls"] / one["n"] for kind, one in row.kinds.items()} for row in ladders}
        figure = _bars(shares, "share of visible steps in which the score falls", "held-out ladders of damage")
        found.append(_save(figure, folder / "ladders_kinds.png"))
    rows = [row for report in reports for row in report.rows]
    if rows:
        found.append(_save(_summary(rows), folder / "summary.png"))
    return found


def _name(row: BenchmarkRow, scorer: bool = True) -> str:
    words = f"{row.data}_{row.split}" + (f"_{row.scorer}" if scorer else "")
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in words)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> Path:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", bbox_inches="tight")
    return path


def _scatter(report: BenchmarkReport, place: int) -> Any:
    """Scores of one scorer against ratings, and the logistic behind its RMSE and fitted PLCC."""
    row, scored = report.rows[place], report.scored[place]
    pairs = [(v, image.mos) for v, image in zip(scored.values, report.data.images, strict=True) if v is not None]
    x, y = np.array(pairs).T
    figure, axes = _figure(5.5, 4.5)
    shown = np.linspace(0, len(x) - 1, min(len(x), _MOST_DOTS)).astype(int)
    axes.scatter(x[shown], y[shown], s=6, alpha=0.35, linewidths=0)
    curve, at = fit_logistic(x, y), np.linspace(x.min(), x.max(), 200)
    words = "4-parameter logistic" if curve.converged else "straight line (no logistic fits)"
    axes.plot(at, curve(at), color="black", linewidth=1.2, label=words)
    axes.set_xlabel(f"score of {row.scorer}" + (" (turned)" if scored.spec.direction == "lower" else ""))
    axes.set_ylabel("people's rating, 0 to 100")
    axes.set_title(f"{row.data} {row.split}, n = {row.n}: SRCC {row.srcc:.3f}, PLCC {row.plcc_fitted:.3f} fitted")
    axes.legend(loc="best", fontsize="small")
    return figure


def _bars(values: dict[str, dict[str, float]], axis: str, title: str) -> Any:
    """Groups of horizontal bars: a group for each kind, a bar for each scorer."""
    kinds = list(dict.fromkeys(kind for found in values.values() for kind in found))
    figure, axes = _figure(7.0, 1.2 + 0.25 * len(kinds) * (1 + 0.6 * (len(values) - 1)))
    high = 0.8 / len(values)
    for place, (scorer, found) in enumerate(values.items()):
        at = [number + place * high for number, kind in enumerate(kinds) if kind in found]
        axes.barh(at, [found[kind] for kind in kinds if kind in found], height=high, label=scorer)
    middles = [number + 0.4 - high / 2 for number in range(len(kinds))]
    axes.set_yticks(middles, [kind.replace("_", " ") for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    axes.set_title(title)
    axes.legend(loc="best", fontsize="small")
    return figure


def _summary(rows: Sequence[BenchmarkRow]) -> Any:
    """SRCC of every row with its interval."""
    figure, axes = _figure(7.0, 1.2 + 0.35 * len(rows))
    for place, row in enumerate(rows):
        ends = [[max(row.srcc - row.srcc_low, 0.0)], [max(row.srcc_high - row.srcc, 0.0)]]
        axes.errorbar([row.srcc], [place], xerr=ends, fmt="o", capsize=3, color="black", markersize=4)
    axes.set_yticks(range(len(rows)), [f"{row.scorer}, {row.data} {row.split}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("SRCC with its 95 % bootstrap interval over contents")
    axes.grid(axis="x", alpha=0.3)
    return figure
