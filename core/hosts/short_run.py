"""A short run to the end: where it asks the denoiser on the rest of a schedule. The same for every host."""

from __future__ import annotations


def leaps(begun: int, steps: int, ahead: int) -> tuple[int, ...]:
    """Numbers of the schedule's levels, counted from 0, at which a short run asks the denoiser again.

    It stands at level ``begun`` − 1, whose prediction is known, and goes on to the end (level ``steps``, which is clean)
    in ``ahead`` + 1 leaps, as even as whole steps allow.

    Args:
        begun: Steps that have begun, 1 to ``steps``.
        steps: Of the schedule.
        ahead: Questions at most; where fewer levels are left there are fewer.
    """
    here = begun - 1
    left = steps - here
    asked = max(0, min(ahead, left - 1))
    return tuple(here + (2 * number * left + asked + 1) // (2 * (asked + 1)) for number in range(1, asked + 1))
