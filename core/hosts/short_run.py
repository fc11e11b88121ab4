"""A short run to the end: where it asks the denoiser on the rest of a schedule. The same for every host."""

from __future__ import annotations

#: Above 1 the leaps are longest first. Chosen on the embedded model: with more of them late, looks rank better.
_BEND = 1.5


def leaps(begun: int, steps: int, ahead: int) -> tuple[int, ...]:
    """Numbers of the schedule's levels, counted from 0, at which a short run asks the denoiser again.

    It stands at level ``begun`` − 1, whose prediction is known, and goes on to the end (level ``steps``, which is
    clean) in ``ahead`` + 1 leaps, the longest first.

    Args:
        begun: Steps that have begun, 1 to ``steps``.
        steps: Of the schedule.
        ahead: Questions at most; where fewer levels are left there are fewer.
    """
    here = begun - 1
    left = steps - here
    asked = max(0, min(ahead, left - 1))
    found: list[int] = []
    for number in range(1, asked + 1):
        way = 1 - (1 - number / (asked + 1)) ** _BEND
        lowest = found[-1] + 1 if found else here + 1
        highest = steps - 1 - (asked - number)
        found.append(min(max(lowest, here + round(way * left)), highest))
    return tuple(found)
