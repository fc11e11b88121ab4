"""Bootstrap over contents, the fitted logistic, and tests of differences, each against an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from latent_critic.core.benchmark.agreement import agreement, kendall, pearson, spearman
from latent_critic.core.benchmark.bootstrap import bootstrap_interval, bootstrap_places
from latent_critic.core.benchmark.logistic import fit_logistic
from latent_critic.core.benchmark.significance import compare, holm, two_sided, williams
from latent_critic.core.errors import BadInput
from scipy import optimize, stats


def rated(seed, n=200, noises=(10.0, 30.0)):
    """Ratings, and scores with that much noise on them."""
    draw = np.random.default_rng(seed)
    mos = draw.uniform(0, 100, n)
    return mos, *(mos + draw.normal(0, noise, n) for noise in noises)


def test_samples_draw_whole_contents():
    groups = ["a", "b", "a", "c", "b", "a"]
    seen = set()
    for places in bootstrap_places(6, groups, resamples=200):
        drawn = [groups[place] for place in places]
        for name, size in (("a", 3), ("b", 2), ("c", 1)):
            assert drawn.count(name) % size == 0
        assert sum(drawn.count(name) // size for name, size in (("a", 3), ("b", 2), ("c", 1))) == 3
        seen.add(tuple(sorted(drawn)))
    assert len(seen) == 10, "all multisets of three contents"


def test_singles_are_contents_of_their_own():
    alone = list(bootstrap_places(5, None, resamples=150, seed=3))
    named = list(bootstrap_places(5, list("vwxyz"), resamples=150, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(alone, named, strict=True))
    assert len(alone) == 150


def test_a_group_for_every_picture():
    with pytest.raises(BadInput, match="one per picture"):
        next(bootstrap_places(3, ["a"]))


def test_repeated_contents_widen_the_interval_as_a_slow_loop_says():
    mos, scores, _ = rated(1, 40)
    groups = np.repeat(np.arange(40), 5)
    many = agreement(np.repeat(scores, 5), np.repeat(mos, 5), list(groups), resamples=400)
    naive = agreement(np.repeat(scores, 5), np.repeat(mos, 5), resamples=400)
    alone = agreement(scores, mos, resamples=400)
    assert many.srcc_high - many.srcc_low > 1.6 * (naive.srcc_high - naive.srcc_low)
    assert many.srcc_low == pytest.approx(alone.srcc_low, abs=0.02)
    assert many.contents == 40
    draw, found = np.random.default_rng(9), []
    for _ in range(400):
        picked = draw.choice(40, 40)
        places = [place for group in picked for place in np.flatnonzero(groups == group)]
        found.append(stats.spearmanr(np.repeat(scores, 5)[places], np.repeat(mos, 5)[places]).statistic)
    assert (many.srcc_low, many.srcc_high) == pytest.approx(np.percentile(found, [2.5, 97.5]), abs=0.02)


def test_every_interval_belongs_to_its_measure():
    mos, scores, _ = rated(2, 80)
    found = agreement(scores, mos, resamples=300, seed=5)
    for name, measure in (("srcc", spearman), ("plcc", pearson), ("krcc", kendall)):
        ends = bootstrap_interval(lambda p, m=measure: m(scores[p], mos[p]), 80, resamples=300, seed=5)
        assert (getattr(found, f"{name}_low"), getattr(found, f"{name}_high")) == ends
        assert ends[0] < getattr(found, name) < ends[1]


def test_the_logistic_equals_another_optimiser():
    mos, _, scores = rated(3)

    def loss(beta):
        return np.sum((beta[0] + beta[1] / (1 + np.exp(-(scores - beta[2]) / beta[3])) - mos) ** 2)

    theirs = optimize.minimize(loss, [0.0, 100.0, 50.0, 20.0], method="Nelder-Mead", options={"maxiter": 20000})
    found = agreement(scores, mos, resamples=10)
    assert found.converged
    assert found.rmse == pytest.approx(math.sqrt(theirs.fun / len(mos)), rel=1e-4)
    low, span, middle, width = theirs.x
    assert found.plcc_fitted == pytest.approx(
        stats.pearsonr(low + span / (1 + np.exp(-(scores - middle) / width)), mos).statistic, abs=1e-4
    )
    assert found.plcc_fitted >= found.plcc - 1e-3


def test_a_bent_scale_is_forgiven_by_the_fit_only():
    mos = np.linspace(5, 95, 100)
    scores = 3 + 2 * np.log((mos - 0) / (100 - mos))  # the inverse of a logistic
    found = agreement(scores, mos, resamples=10)
    assert found.plcc_fitted == pytest.approx(1.0, abs=1e-6)
    assert found.plcc < 0.999
    assert found.rmse < 0.01


def test_a_curve_that_falls_is_never_fitted():
    """Else an upside-down scorer would look good."""
    mos, scores, _ = rated(4, noises=(5.0, 5.0))
    found = agreement(-scores, mos, resamples=10)
    assert found.srcc < -0.9
    assert found.plcc_fitted < 0.3
    assert found.rmse > 0.9 * mos.std()


def test_where_nothing_converges_a_straight_line_stands_in(monkeypatch):
    def never(*_, **__):
        raise RuntimeError("Optimal parameters not found")

    monkeypatch.setattr(optimize, "curve_fit", never)
    mos, scores, _ = rated(5)
    curve = fit_logistic(scores, mos)
    slope, base = np.polyfit(scores, mos, 1)
    assert not curve.converged
    assert curve(scores) == pytest.approx(base + slope * scores)
    found = agreement(scores, mos, resamples=10)
    assert not found.converged
    assert found.plcc_fitted == pytest.approx(found.plcc)
    assert agreement(-scores, mos, resamples=10).plcc_fitted == 0.0


def test_few_and_tied_values_do_not_break_the_fit():
    assert agreement([1, 2, 3], [10, 20, 30], resamples=20).srcc == pytest.approx(1)
    found = agreement([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], resamples=20)
    assert math.isfinite(found.rmse)
    assert found.rmse == pytest.approx(math.sqrt(2 / 3), rel=1e-3), "a step between the two scores"


def test_williams_is_steigers_worked_example():
    """Correlations .4 and .5 that share a variable, .1 between, n = 103: t = -0.89, as the R package psych prints."""
    p = williams(0.4, 0.5, 0.1, 103)
    assert p == pytest.approx(2 * stats.t.sf(0.89, 100), abs=2e-3)
    assert williams(0.5, 0.4, 0.1, 103) == p
    assert williams(0.5, 0.5, 0.1, 103) == 1.0
    assert williams(0.9, 0.5, 0.6, 200) < 1e-10


def test_p_values_are_level_where_nothing_differs():
    """Two equally noisy scorers: about one p value in twenty lies below 0.05, by either test."""
    found = [compare(*rated(seed, 60, (25.0, 25.0))[1:], rated(seed, 60)[0], resamples=199) for seed in range(120)]
    # rated() draws the ratings first, so both calls of one seed share them.
    for values in ([one.p for one in found], [one.p_williams for one in found]):
        assert 0.0 <= np.mean(np.array(values) < 0.05) <= 0.12
        assert 0.35 < np.mean(values) < 0.65
    agree = np.corrcoef([one.p for one in found], [one.p_williams for one in found])[0, 1]
    assert agree > 0.9


def test_a_real_difference_is_found_and_signed():
    mos, better, worse = rated(7)
    found = compare(better, worse, mos, resamples=500)
    assert found.difference == pytest.approx(
        stats.spearmanr(better, mos).statistic - stats.spearmanr(worse, mos).statistic
    )
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.01
    assert found.p_williams < 0.01
    back = compare(worse, better, mos, resamples=500)
    assert (back.difference, back.p) == (-found.difference, found.p)


def test_a_scorer_does_not_differ_from_itself():
    mos, scores, _ = rated(8)
    found = compare(scores, 2 * scores + 1, mos, resamples=50)
    assert (found.difference, found.p, found.p_williams) == (0.0, 1.0, 1.0)


def test_a_p_value_is_never_zero():
    assert two_sided(np.ones(99)) == pytest.approx(2 / 100)
    assert two_sided(np.array([-1.0, 1.0])) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
