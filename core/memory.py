"""Telling an error of too little memory from others, on any device."""

from __future__ import annotations

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. PyTorch has a class for it on CUDA alone; on the CPU it raises a plain RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS))
    )
