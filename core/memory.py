"""Too little memory, on any device: told from other errors, and answered by smaller pieces of work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. PyTorch has a class for it on CUDA alone; on the CPU it raises a plain RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS))
    )


def in_chunks(
    count: int, size: int, work: Callable[[int, int], T], recover: Callable[[], object] | None = None
) -> tuple[list[T], int]:
    """Call ``work(first, last)`` over ``count`` rows, ``size`` at a time; out of memory, go on with half the size.

    A chunk that failed is done again from its beginning.

    Args:
        count: Rows in all.
        size: Rows in a chunk at most.
        work: What is done with rows ``first`` to ``last - 1``.
        recover: Called before the smaller chunk, to give memory back.

    Returns:
        What ``work`` gave, in order, and the size that fitted in the end.

    Raises:
        RuntimeError, MemoryError: not even one row fits.
    """
    done: list[T] = []
    first = 0
    while first < count:
        last = min(count, first + size)
        found = _tried(work, first, last)
        if found:
            done += found
            first = last
            continue
        size = (last - first) // 2
        logger.warning("Out of memory with %d rows in one forward; going on with %d.", last - first, size)
        if recover is not None:
            recover()
    return done, size


def _tried(work: Callable[[int, int], T], first: int, last: int) -> list[T]:
    """What the work gave, or nothing where memory ran out; by now the error keeps no tensors alive."""
    try:
        return [work(first, last)]
    except (RuntimeError, MemoryError) as error:
        if last - first <= 1 or not is_out_of_memory(error):
            raise
    return []
