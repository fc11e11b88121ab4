"""The figures of the model card, written by the command that measures them and by nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...files import write_text

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
#: Correlation from which on two pictures are the same one: data sets hold some twice.
_TWIN = 0.98


def fill_card(card: Path, record: Mapping[str, Any], figures: Mapping[str, Any], command: str) -> None:
    """Put the table of figures between the card's two markers.

    Raises:
        BadInput: the file has no markers.
    """
    text = card.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"a card with {BEGIN} and {END}", str(card), "Add the two markers.")
    write_text(card, f"{before}{BEGIN}\n{_table(record, figures, command)}\n{END}{after}")


def copies(figures: Mapping[str, Any]) -> str:
    """How many samples are nearer to a training crop than every held-back picture without a twin among those is."""
    others = [value for value in figures["nearest_held_back"] if value < _TWIN]
    count = sum(value > max(others, default=_TWIN) for value in figures["nearest"])
    twins = len(figures["nearest_held_back"]) - len(others)
    told = f"{count} of {len(figures['nearest'])}"
    return f"{told} ({twins} held-back pictures with a twin among those left out)" if twins else told


def _table(record: Mapping[str, Any], figures: Mapping[str, Any], command: str) -> str:
    rows = [
        ("autoencoder steps", record["autoencoder"]["steps"]),
        ("denoiser steps", record["denoiser"]["steps"]),
        (f"PSNR at {figures['size']} pixels, {figures['held_back']} held-back pictures", f"{figures['psnr']} dB"),
        *((f"AUC, words against damage: {kind}", value) for kind, value in figures["auc"].items()),
        ("samples nearer to a training crop than every held-back picture is", copies(figures)),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"Made by `{command}`.", "", "| measured | |", "|---|---|", *lines])
