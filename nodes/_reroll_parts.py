"""What the inner nodes of Reroll Until Good have in common. Nobody places them by hand."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.selection.seeds import MOST
from ._sockets import CATEGORY_MAKING, AttemptSocket

_INTERNAL = "Part of Reroll Until Good, which puts it into the running graph by itself. Do not place it."


def inner_schema(node_id: str, name: str, **fields: Any) -> io.Schema:
    """The schema of an inner node, which the frontend's search does not find."""
    return io.Schema(
        node_id=node_id,
        display_name=f"{name} (internal)",
        category=CATEGORY_MAKING,
        description=_INTERNAL,
        is_deprecated=True,  # keeps it out of the frontend's search
        **fields,
    )


def attempt_schema(node_id: str, name: str, inputs: list[io.Input]) -> io.Schema:
    """The schema of an inner node that makes one attempt; it takes whole lists."""
    return inner_schema(
        node_id,
        name,
        is_input_list=True,
        inputs=inputs,
        outputs=[AttemptSocket.Output("attempt", "attempt", "The attempt with its scores.")],
    )


def attempt_seed() -> io.Input:
    """The seed of one attempt."""
    return io.Int.Input("seed", default=0, min=0, max=MOST, tooltip="The seed of the attempt.")
