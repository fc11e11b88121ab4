"""The interval behind the probe's speed row."""

import numpy as np
import pytest
from latent_critic.core.benchmark.speed_probe import ratio_interval
from latent_critic.core.benchmark.timing import Timings


def test_the_interval_holds_the_median_ratio_of_the_pairs():
    draw = np.random.default_rng(0)
    plain = 1 + draw.random(60)
    timings = Timings({"probed": list(plain * (1.01 + 0.02 * draw.standard_normal(60))), "plain": list(plain)})
    low, high = ratio_interval(timings, "probed", "plain")
    assert low < timings.ratio("probed", "plain") < high
    assert high - low < 0.02
    assert low == pytest.approx(1.005, abs=0.006)


def test_equal_times_have_no_width():
    timings = Timings({"probed": [2.0] * 5, "plain": [1.0] * 5})
    assert ratio_interval(timings, "probed", "plain") == (2.0, 2.0)
