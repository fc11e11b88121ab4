"""What a benchmark leaves behind: tables in every form, plots, and words about what was not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: The first columns of every form, in order: a contract for ``--json``, which adds more.
COLUMNS = (
    "data",
    "split",
    "scorer",
    "backbone",
    "n",
    "srcc",
    "srcc_low",
    "srcc_high",
    "plcc",
    "krcc",
    "rmse",
    "missing",
)
#: What follows them in CSV; a column that no row fills is left out.
MORE = (
    "plcc_fitted",
    "plcc_low",
    "plcc_high",
    "krcc_low",
    "krcc_high",
    "contents",
    "share",
    "share_low",
    "share_high",
    "falls",
    "content_spread",
    "noise_spread",
    "images_per_second",
    "denoiser_calls",
    "peak_mib",
    "peak_of",
    "versus",
    "difference",
    "difference_low",
    "difference_high",
    "difference_n",
    "p",
    "p_holm",
    "p_williams",
)
Rows = Sequence[dict[str, Any]]


def ordered(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON: the contract's columns first."""
    return {name: row[name] for name in COLUMNS} | {name: value for name, value in row.items() if name not in COLUMNS}


def as_csv(rows: Rows) -> str:
    """CSV of all rows: the contract's columns, then every other that any row fills."""
    from ..export import csv_line

    names = [*COLUMNS, *(name for name in MORE if any(row.get(name) is not None for row in rows))]
    return "".join([csv_line(names), *(csv_line([row.get(name) for name in names]) for row in rows)])


def as_table(rows: Rows) -> str:
    """Aligned columns for a terminal."""
    from .console import table

    names = [name for name in COLUMNS if name != "backbone" or any(row[name] for row in rows)]
    names += [name for name in ("share", "images_per_second") if any(row.get(name) is not None for row in rows)]
    return table([names, *([_text(row.get(name)) for name in names] for row in rows)])


def as_markdown(rows: Rows, unmeasured: Sequence[str] = ()) -> str:
    """Tables for a model card or a README: agreement, ladders, costs, and who is better than whom."""
    from ..benchmark.significance import NOTE

    rated = [row for row in rows if row["plcc"] is not None]
    ladders = [row for row in rows if row.get("share") is not None]
    compared = [row for row in rows if row.get("versus")]
    parts = []
    if rated:
        parts.append(_agreement(rated))
    if ladders:
        parts.append(_ladders(ladders))
    if compared:
        parts += [_significance(compared), NOTE]
    if any(row.get("denoiser_calls") or row.get("noise_spread") for row in rows):
        parts.append(_costs(rows))
    if unmeasured:
        parts.append("Not measured: " + "; ".join(unmeasured) + ".")
    return "\n\n".join(parts) + "\n"


def _agreement(rows: Rows) -> str:
    lines = [
        "| data | part | scorer | n | SRCC (95 % interval) | PLCC | PLCC fitted | KRCC | RMSE |",
        "|---|---|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        interval = f"{row['srcc']:.3f} ({row['srcc_low']:.3f} to {row['srcc_high']:.3f})"
        figures = " | ".join(f"{row[name]:.3f}" for name in ("plcc", "plcc_fitted", "krcc"))
        line = (row["data"], row["split"], row["scorer"], str(row["n"]), interval, figures, f"{row['rmse']:.2f}")
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def _ladders(rows: Rows) -> str:
    lines = [
        "| scorer | steps | the score falls in (95 % interval) | mean SRCC with damage | spread over contents |",
        "|---|--:|---|--:|--:|",
    ]
    for row in rows:
        share = f"{row['share']:.1%} ({row['share_low']:.1%} to {row['share_high']:.1%})"
        spread = "–" if row["content_spread"] is None else f"{row['content_spread']:.2f}"
        lines.append(f"| {row['scorer']} | {row['n']} | {share} | {row['srcc']:.3f} | {spread} |")
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["kinds"]))
    lines += ["", f"| held-out kind | {' | '.join(row['scorer'] for row in rows)} |", "|---|" + "--:|" * len(rows)]
    for kind in kinds:
        found = [row["kinds"].get(kind) for row in rows]
        cells = ["–" if one is None else f"{one['falls']:.0f} of {one['n']:.0f}" for one in found]
        lines.append(f"| {kind.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _significance(rows: Rows) -> str:
    lines = [
        "| data | part | scorer | against | n | difference (95 % interval) | p | p (Holm) | p (Williams) |",
        "|---|---|---|---|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        interval = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
        p = [_p(row.get(name)) for name in ("p", "p_holm", "p_williams")]
        line = (row["data"], row["split"], row["scorer"], row["versus"], str(row["difference_n"]), interval, *p)
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _costs(rows: Rows) -> str:
    lines = [
        "| data | scorer | images/s | denoiser rows per image | peak memory | spread over noise draws |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        peak = "–" if row["peak_mib"] is None else f"{row['peak_mib']:.0f} MiB ({row['peak_of']})"
        cells = (
            row["data"],
            row["scorer"],
            _text(row["images_per_second"], 2),
            _text(row["denoiser_calls"], 1),
            peak,
            _text(row["noise_spread"], 3),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(value: Any, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
