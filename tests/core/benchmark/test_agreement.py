"""Agreement against scipy's own bootstrap, slow loops, and its errors."""

import math

import numpy as np
import pytest
from latent_critic.core.benchmark.agreement import agreement
from latent_critic.core.errors import BadInput
from scipy import stats


@pytest.fixture(scope="module")
def pair():
    draw = np.random.default_rng(7)
    mos = draw.uniform(0, 100, 300).round(0)  # with ties, as real ratings have
    return (mos + draw.normal(0, 20, 300)).round(0), mos


def slow_ranks(values):
    return [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]


def slow_pearson(a, b):
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return top / math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))


def slow_tau_b(a, b):
    agree = ties_a = ties_b = pairs = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
            agree, ties_a, ties_b, pairs = agree + x * y, ties_a + (x == 0), ties_b + (y == 0), pairs + 1
    return agree / math.sqrt((pairs - ties_a) * (pairs - ties_b))


def test_every_correlation_equals_a_slow_loop(pair):
    scores, mos = pair
    found = agreement(scores, mos)
    assert found.srcc == pytest.approx(slow_pearson(slow_ranks(scores), slow_ranks(mos)), abs=1e-12)
    assert found.plcc == pytest.approx(slow_pearson(scores, mos), abs=1e-12)
    assert found.krcc == pytest.approx(slow_tau_b(scores, mos), abs=1e-12)
    assert found.n == 300


def test_the_interval_agrees_with_scipys_bootstrap(pair):
    found = agreement(*pair, resamples=2000)
    theirs = stats.bootstrap(
        pair, lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, n_resamples=1000,
        method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.srcc_low < found.srcc < found.srcc_high
    assert found.srcc_low == pytest.approx(theirs.low, abs=0.01)
    assert found.srcc_high == pytest.approx(theirs.high, abs=0.01)
    assert agreement(*pair, resamples=2000) == found, "the same seed gives the same interval"


def test_rmse_forgives_a_monotone_curve_but_not_noise():
    score = np.linspace(-3, 3, 200)
    mos = 20 + 60 / (1 + np.exp(-(score - 0.5) / 0.4))
    assert agreement(score, mos).rmse < 0.01
    noisy = mos + np.random.default_rng(0).normal(0, 5, 200)
    assert agreement(score, noisy).rmse == pytest.approx(5, rel=0.15)


def test_perfect_and_reversed_order():
    up = list(range(20))
    assert agreement(up, up).srcc == pytest.approx(1)
    assert agreement(up, up[::-1]).srcc == pytest.approx(-1)


@pytest.mark.parametrize(
    ("scores", "mos", "words"),
    [
        ([1.0] * 5, [1, 2, 3, 4, 5], "constant"),
        ([1, 2, 3, 4, 5], [2.0] * 5, "constant"),
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, math.nan], [1, 2, 3], "finite"),
        ([1, 2, 3], [1, 2, 3, 4], "one rating per score"),
    ],
)
def test_bad_input_is_an_error_and_never_nan(scores, mos, words):
    with pytest.raises(BadInput, match=words):
        agreement(scores, mos)
