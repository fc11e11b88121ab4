"""The learning curve of a fit as a picture."""

from __future__ import annotations

from pathlib import Path

from ..benchmark.plots import check_plots
from ..errors import BadInput
from ..files import whole_file
from ..fitting.ladders import UnratedFit
from ..fitting.rated import RatedFit


def plot_curve(fit: RatedFit | UnratedFit, path: Path) -> None:
    """The learning curve as PNG.

    Raises:
        BadInput: the fit has none.
        MissingDependency: matplotlib is not installed.
    """
    if not isinstance(fit, RatedFit) or not fit.curve:
        raise BadInput("a fit with a learning curve", "one without", "Leave --plot out, or fit to ratings.")
    check_plots()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    x, y = [point.pictures for point in fit.curve], [point.srcc for point in fit.curve]
    low = [point.srcc - point.srcc_low for point in fit.curve]
    high = [point.srcc_high - point.srcc for point in fit.curve]
    axes.errorbar(x, y, yerr=(low, high), marker="o", capsize=4)
    axes.set(xlabel="pictures fitted to", ylabel="SRCC on held-out pictures", title=fit.head.meta.training_set)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
