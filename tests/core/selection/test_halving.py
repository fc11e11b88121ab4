"""Successive halving: who goes on, what it costs, and the run over generators."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.selection.abort import EarlyAbort
from latent_critic.core.selection.halve import halve
from latent_critic.core.selection.halving import Halving

UNHURRIED = settings(deadline=None)
JUDGE = ScoreSpec("judge", scale=(0.0, 100.0), calibrated_on="photographs")
LOWER = ScoreSpec("damage", direction="lower", scale=(0.0, 100.0), calibrated_on="photographs")

specs = st.sampled_from([JUDGE, LOWER])
policies = st.builds(Halving, keep=st.lists(st.floats(0.05, 1.0), max_size=4).map(tuple), least=st.integers(1, 4))
values = st.lists(st.none() | st.sampled_from([0.0, 50.0]) | st.floats(0, 100), min_size=1, max_size=12)


class Bench:
    """Images are numbers and score as such. Each candidate's previews and result are its row; its steps are counted."""

    def __init__(self, rows, spec=JUDGE):
        self.rows, self.spec = rows, spec
        self.steps, self.closed = dict.fromkeys(range(len(rows)), 0), []

    def generate(self, seed):
        try:
            for value in self.rows[seed][:-1]:
                self.steps[seed] += 1
                yield value
            self.steps[seed] += 1
            return self.rows[seed][-1]
        finally:
            self.closed.append(seed)

    def score(self, images):
        return ScoreBatch(self.spec, tuple(Score.of(math.nan if v is None else v, i) for i, v in enumerate(images)))

    def run(self, policy, seeds=None, **rest):
        return halve(self.generate, self, policy, list(self.steps) if seeds is None else seeds, **rest)


@UNHURRIED
@given(policies, st.integers(1, 40))
def test_fewer_and_fewer_go_on_but_never_none(policy, candidates):
    counts = policy.counts(candidates)
    assert len(counts) == len(policy.keep) + 1
    assert counts[0] == candidates
    assert all(low >= high >= min(policy.least, candidates) for low, high in pairwise(counts))
    for before, after, share in zip(counts, counts[1:], policy.keep, strict=False):
        assert after >= before * share - 1e-6


@UNHURRIED
@given(values, specs, st.floats(0.05, 1.0))
def test_nobody_who_goes_on_is_worse_than_one_who_does_not(numbers, spec, share):
    batch = Bench([], spec).score(numbers)
    policy = Halving((share,))
    kept = policy.survivors(0, batch)
    assert len(kept) == policy.counts(len(numbers))[1]
    assert list(kept) == sorted(kept)
    gone = set(range(len(numbers))) - set(kept)
    for good in kept:
        for bad in gone:
            if batch[bad].ok:
                assert batch[good].ok
                assert spec.goodness(batch[good].value) >= spec.goodness(batch[bad].value)


@UNHURRIED
@given(st.data(), specs, policies, st.integers(1, 9))
def test_a_run_spends_what_the_policy_says_and_finds_the_best_of_the_finished(data, spec, policy, candidates):
    size = len(policy.keep)
    row = st.tuples(st.lists(st.floats(0, 100), min_size=size, max_size=size), st.none() | st.floats(0, 100)).map(
        lambda pair: [*pair[0], pair[1]]
    )
    bench = Bench([data.draw(row) for _ in range(candidates)], spec)
    found = bench.run(policy)
    counts = policy.counts(candidates)
    assert sum(bench.steps.values()) == sum(counts)
    looks = [(place + 1) / len(counts) for place in range(len(policy.keep))]
    assert found.cost(looks) == pytest.approx(policy.cost(candidates, looks))
    assert policy.cost(candidates, looks) == pytest.approx(sum(counts) / (candidates * len(counts)))
    assert sorted(bench.closed) == list(range(candidates))
    assert len(found.finished) == counts[-1]
    ends = [bench.rows[score.seed][-1] for score in found.finished]
    scored = [value for value in ends if value is not None]
    if scored:
        assert found.image == (max if spec is JUDGE else min)(scored)
        assert bench.rows[found.seed][-1] == found.image
    else:
        assert (found.image, found.score, found.seed) == (None, None, None)


@UNHURRIED
@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), policies)
def test_previews_that_tell_the_truth_never_lose_the_winner(numbers, policy):
    bench = Bench([[value] * (len(policy.keep) + 1) for value in numbers])
    found = bench.run(policy)
    assert found.image == max(numbers)
    assert found.seed == numbers.index(max(numbers))


def test_the_log_of_looks():
    found = Bench([[1, 9], [5, 2], [None, 8], [7, 4]]).run(Halving((0.5,)))
    (look,) = found.looks
    assert look.seeds == (0, 1, 2, 3)
    assert look.kept == (1, 3)
    assert look.scores.values() == [1, 5, None, 7]
    assert (found.seed, found.image) == (3, 4)


def test_one_candidate_is_finished():
    assert Bench([[1, 2]]).run(Halving((0.5,))).image == 2


def test_no_shares_finish_everybody():
    assert Bench([[1], [3]]).run(Halving(())).image == 3


def test_an_interrupt_closes_every_candidate():
    bench = Bench([[1, 2], [1, 2], [1, 2]])

    def generate(seed):
        plain = bench.generate(seed)
        try:
            yield next(plain)
            if seed == 1:
                raise KeyboardInterrupt
            return 0
        finally:
            plain.close()

    with pytest.raises(KeyboardInterrupt):
        halve(generate, bench, Halving((1.0,)), [0, 1, 2])
    assert sorted(bench.closed) == [0, 1, 2]


@pytest.mark.parametrize("rows", [[[1], [2]], [[1, 2, 3], [1, 2, 3]]])
def test_a_generator_with_another_number_of_previews_is_refused(rows):
    with pytest.raises(BadInput, match="preview"):
        Bench(rows).run(Halving((0.5,)))


@pytest.mark.parametrize("seeds", [[], [0, 0]])
def test_no_seeds_and_double_seeds_are_refused(seeds):
    with pytest.raises(BadInput, match="seed"):
        Bench([[1, 2]]).run(Halving(), seeds)


@pytest.mark.parametrize("options", [{"keep": (0.0,)}, {"keep": (1.1,)}, {"keep": (math.nan,)}, {"least": 0}])
def test_bad_policies_are_refused(options):
    with pytest.raises(BadInput):
        Halving(**options)


def test_cost_needs_rising_looks():
    assert Halving((0.25,)).cost(16, [0.2]) == pytest.approx(0.2 + 0.8 * 0.25)
    for looks in ([], [0.5, 0.6], [0.0], [1.0]):
        with pytest.raises(BadInput, match="rising"):
            Halving((0.25,)).cost(16, looks)


def test_a_look_at_which_no_preview_has_a_score_drops_nobody():
    found = Bench([[None, 1], [None, 3], [None, 2]]).run(Halving((0.4,)))
    assert found.looks[0].kept == (0, 1, 2)
    assert (found.seed, found.cost([0.5])) == (1, 1.0)


def test_an_early_abort_drops_who_is_far_behind_and_says_why():
    rows = [[90, 1], [10, 2], [80, 3], [70, 4]]
    found = Bench(rows).run(Halving((1.0,)), abort=EarlyAbort("of this batch", 0.3))
    (look,) = found.looks
    assert look.kept == (0, 2, 3)
    assert look.dropped == {1: "10.0 < quantile 0.3 of this batch (64.0)"}
    assert found.seed == 3
    assert found.cost([0.5]) == pytest.approx(0.875)


def test_an_abort_of_everybody_leaves_the_least():
    bench = Bench([[1, 5], [2, 6], [3, 7]])

    def standing(look, scores):
        return [(0.0, 100)] * len(scores)

    found = bench.run(Halving((1.0,), least=2), abort=EarlyAbort("of history", 0.5), standing=standing)
    assert found.looks[0].kept == (1, 2)
    assert "of 100 earlier ones at this step" in found.looks[0].dropped[0]
    assert sorted(bench.closed) == [0, 1, 2]


def test_an_abort_of_history_needs_one():
    with pytest.raises(BadInput, match="a history for an abort"):
        Bench([[1, 2]]).run(Halving((1.0,)), abort=EarlyAbort("of history"))


@pytest.mark.parametrize("at", [[], [0.2, 0.4], [0.0], [1.0]])
def test_the_cost_needs_a_fraction_for_each_look(at):
    with pytest.raises(BadInput, match="1 rising fractions"):
        Bench([[1, 2]]).run(Halving((0.5,))).cost(at)
