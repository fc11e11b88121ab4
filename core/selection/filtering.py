"""Lists that belong to a batch of images, filtered together with it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..errors import BadInput

T = TypeVar("T")


def one_per_image(items: Sequence[T], count: int, what: str) -> list[T]:
    """``items`` spread over ``count`` images: one for each, or a single one for all.

    Raises:
        BadInput: neither one nor ``count`` items.
    """
    if len(items) == count:
        return list(items)
    if len(items) == 1:
        return [items[0]] * count
    raise BadInput(
        f"{count} {what}, one per image (or one for all)",
        str(len(items)),
        f"Connect a list as long as the batch of images, or a single one of the {what}.",
    )


def take(items: Sequence[T], places: Sequence[int], count: int, what: str) -> list[T]:
    """The items at these places of a batch of ``count``; a single item that stands for all images stays one.

    Raises:
        BadInput: neither one nor ``count`` items.
    """
    spread = one_per_image(items, count, what)
    if len(items) == 1 and count != 1:
        return list(items) if places else []
    return [spread[place] for place in places]
