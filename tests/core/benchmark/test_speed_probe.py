"""Intervals of ratios, and the clock of the rows that a busy machine would disturb."""

import time

import numpy as np
import pytest
import torch
from latent_critic.core.benchmark.speed_row import time_row
from latent_critic.core.benchmark.timing import Timings, interleaved, own_clock


def test_the_interval_holds_the_median_ratio_of_the_pairs():
    draw = np.random.default_rng(0)
    plain = 1 + draw.random(60)
    timings = Timings({"probed": list(plain * (1.01 + 0.02 * draw.standard_normal(60))), "plain": list(plain)})
    low, high = timings.interval("probed", "plain")
    assert low < timings.ratio("probed", "plain") < high
    assert high - low < 0.02
    assert low == pytest.approx(1.005, abs=0.006)


def test_equal_times_have_no_width():
    timings = Timings({"probed": [2.0] * 5, "plain": [1.0] * 5})
    assert timings.interval("probed", "plain") == (2.0, 2.0)


def test_a_row_tells_its_interval_from_five_turns_on():
    few, many = (Timings({"a": [2.0] * count, "b": [1.0] * count}) for count in (4, 5))
    assert "interval" not in time_row(few, "a", "b", name="n", limit=1.0, detail="d").detail
    row = time_row(many, "a", "b", name="n", limit=1.0, detail="d", factor=2)
    assert "95 % interval 1.000 to 1.000" in row.detail


def test_on_a_cpu_waiting_for_others_takes_no_time():
    threads = torch.get_num_threads()
    a = torch.rand(300, 300)
    jobs = {"waits": lambda: (a @ a, time.sleep(0.05)), "works": lambda: [a @ a for _ in range(40)]}
    with own_clock("cpu") as clock:
        assert torch.get_num_threads() == 1
        timings = interleaved(jobs, 5, clock)
    assert torch.get_num_threads() == threads
    assert timings.seconds("waits") < 0.02
    assert timings.seconds("works") > timings.seconds("waits")


def test_on_a_device_the_walls_clock_runs():
    with own_clock("cuda") as clock:
        assert clock is time.perf_counter
