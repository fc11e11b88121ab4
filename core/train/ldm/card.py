"""The figures of the model card, written by the command that measures them and by nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import BadInput
from ...files import write_text

BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"


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
    """How many samples are nearer to a training crop than every held-back picture is."""
    count = sum(value > figures["nearest_held_back"][-1] for value in figures["nearest"])
    return f"{count} of {len(figures['nearest'])}"


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
