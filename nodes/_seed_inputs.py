"""Widgets for the seeds of several candidates."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.selection.seeds import SEED_MODES


def seed_order_inputs() -> list[io.Input]:
    """How to go on from the first seed."""
    return [
        io.Combo.Input(
            "seed_mode",
            options=list(SEED_MODES),
            default="increment",
            tooltip="increment: seed, seed + 1, … random: seed, then numbers that it alone decides. list: those of "
            "seed_list.",
        ),
        io.String.Input("seed_list", default="", tooltip="Seeds for the mode list, apart by commas: 7, 11, 42."),
    ]
