"""The levels of a short run: rising, in leaps that become shorter, never the end, never where it stands."""

from itertools import pairwise

import pytest
from latent_critic.core.hosts.short_run import leaps


@pytest.mark.parametrize(
    ("begun", "steps", "ahead", "expected"),
    [
        (1, 10, 0, ()),
        (1, 10, 1, (6,)),
        (1, 10, 2, (5, 8)),
        (2, 10, 2, (5, 8)),
        (4, 10, 1, (8,)),
        (9, 10, 3, (9,)),
        (10, 10, 3, ()),
        (1, 1, 1, ()),
        (1, 20, 3, (7, 13, 18)),
    ],
)
def test_levels(begun, steps, ahead, expected):
    assert leaps(begun, steps, ahead) == expected


def test_leaps_become_shorter():
    for steps in range(1, 40):
        for begun in range(1, steps + 1):
            for ahead in range(8):
                found = leaps(begun, steps, ahead)
                assert len(found) == min(ahead, steps - begun)
                gaps = [b - a for a, b in pairwise((begun - 1, *found, steps))]
                assert min(gaps) >= 1
                assert all(b <= a + 1 for a, b in pairwise(gaps))  # but for rounding to whole steps
