"""The log of the judge's fine-tuning as rows, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import BadInput, MissingDependency
from ..files import whole_file


def curve_rows(log: Path) -> list[dict[str, Any]]:
    """The validations of a log, by step; torn last lines are left out.

    Raises:
        BadInput: no validation in it.
    """
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if "srcc" in row:
            rows.append(row)
    if not rows:
        raise BadInput(f"validations in {log}", "none", "Train until the first one.")
    return sorted(rows, key=lambda row: row["step"])


def ordered_share(row: dict[str, Any]) -> float | None:
    """Of all families' held-back steps of damage, the share in which the score fell."""
    counts = row.get("ladders", {}).values()
    total = sum(count["n"] for count in counts)
    return sum(count["fell"] for count in counts) / total if total else None


def draw_curve(log: Path, out: Path) -> None:
    """SRCC and PLCC on held-back pictures, and the ladders' order, over the steps, as PNG.

    Raises:
        BadInput: no validation in the log.
        MissingDependency: matplotlib is not installed.
    """
    rows = curve_rows(log)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        remedy = "pip install 'latent-critic[plots]', or leave --curve out."
        raise MissingDependency("matplotlib for the curve", "no module matplotlib", remedy) from error
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [row["step"] for row in rows]
    for name in ("srcc", "plcc"):
        axes.plot(
            steps,
            [row.get(name, float("nan")) for row in rows],
            marker=".",
            label=f"{name.upper()}, validation by content",
        )
    shares = [(row["step"], share) for row in rows if (share := ordered_share(row)) is not None]
    if shares:
        axes.plot(*zip(*shares, strict=True), marker=".", linestyle=":", label="damage: steps in which the score falls")
    axes.set_xlabel("steps")
    axes.legend(fontsize=7)
    with whole_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
