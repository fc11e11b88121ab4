"""The rule book of rerolling, and the loop over a generate-callable."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput, UncalibratedThreshold
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.selection.reroll import RerollPolicy, reroll
from latent_critic.core.selection.reroll_log import rows, to_dict, to_text
from latent_critic.core.selection.seeds import Seeds

UNHURRIED = settings(deadline=None)
JUDGE = ScoreSpec("judge", scale=(0.0, 100.0), calibrated_on="photographs")
LOWER = ScoreSpec("damage", direction="lower", scale=(0.0, 100.0), calibrated_on="photographs")
RANKS_ONLY = ScoreSpec("zero_shot")


class Bench:
    """An image is a number, and its score is that number; None is an image that cannot be scored."""

    def __init__(self, values, spec=JUDGE, cost=20, time=2.0):
        self.values, self.spec, self.cost, self.time = list(values), spec, cost, time
        self.seeds, self.now, self.spent = [], 0.0, 0

    def generate(self, seed):
        self.seeds.append(seed)
        self.now += self.time
        self.spent += self.cost
        return self.values[len(self.seeds) - 1]

    def score(self, images):
        return ScoreBatch(self.spec, tuple(Score.of(math.nan if v is None else v, i) for i, v in enumerate(images)))

    def run(self, policy, seeds=None, **more):
        more = {"calls": lambda: self.spent, "clock": lambda: self.now, **more}
        return reroll(self.generate, self, policy, seeds or Seeds(100), **more)


values = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 50.0, 100.0]), st.floats(0, 100)), min_size=1, max_size=9)
specs = st.sampled_from([JUDGE, LOWER])


def good(spec, value, limit):
    return value is not None and (value >= limit if spec.direction == "higher" else value <= limit)


@UNHURRIED
@given(values, specs, st.floats(0, 100), st.booleans())
def test_stops_at_the_first_good_one_or_uses_the_budget(numbers, spec, limit, stop):
    bench = Bench(numbers, spec)
    found = bench.run(RerollPolicy(limit, len(numbers), stop_at_first_good=stop))
    passing = [place for place, value in enumerate(numbers) if good(spec, value, limit)]
    expected = passing[0] + 1 if stop and passing else len(numbers)
    assert bench.seeds == [100 + place for place in range(expected)]
    assert found.passed == bool(passing)
    scored = [value for value in numbers[:expected] if value is not None]
    if scored:
        assert found.image == (max if spec.direction == "higher" else min)(scored)
        assert found.seed == 100 + numbers.index(found.image)
        assert found.score.value == found.image
    else:
        assert (found.image, found.score, found.seed) == (None, None, None)


@UNHURRIED
@given(values, st.integers(1, 9), st.floats(0, 100))
def test_a_larger_budget_goes_on_where_the_smaller_one_ended(numbers, attempts, limit):
    few, more = Bench(numbers), Bench(numbers)
    few.run(RerollPolicy(limit, min(attempts, len(numbers))))
    more.run(RerollPolicy(limit, len(numbers)))
    assert more.seeds[: len(few.seeds)] == few.seeds


def test_without_a_threshold_the_whole_budget_is_used():
    bench = Bench([10, 90, 30], RANKS_ONLY)
    found = bench.run(RerollPolicy(attempts=3))
    assert (found.image, found.passed, len(bench.seeds)) == (90, True, 3)


def test_one_attempt_is_enough_of_a_budget():
    found = Bench([10]).run(RerollPolicy(50, attempts=1))
    assert (found.image, found.passed) == (10, False)


def test_a_missing_score_never_wins_and_is_told():
    found = Bench([None, 5, None]).run(RerollPolicy(50, 3))
    assert found.image == 5
    assert [row["passed"] for row in rows(found.log)] == [False, False, False]
    assert "nan" in rows(found.log)[0]["reason"]


def test_when_no_attempt_has_a_score():
    found = Bench([None, None]).run(RerollPolicy(50, 2))
    assert not found.passed
    assert "No image has a score. The first one: the scorer returned nan" in to_text(found.log)


@pytest.mark.parametrize(
    ("budget", "attempts"),
    [({"calls": 60}, 3), ({"calls": 59}, 2), ({"calls": 1}, 1), ({"seconds": 4.0}, 2), ({"seconds": 0.1}, 1)],
)
def test_calls_and_seconds_end_it_too(budget, attempts):
    bench = Bench([1] * 9)
    found = bench.run(RerollPolicy(50, 9, **budget))
    assert len(bench.seeds) == attempts
    assert found.log.calls == 20 * attempts
    assert found.log.seconds == pytest.approx(2.0 * attempts)
    assert ("denoiser calls" if "calls" in budget else " s of ") in found.log.stopped


def test_a_list_of_seeds_ends_it_too():
    bench = Bench([1, 2, 3])
    found = bench.run(RerollPolicy(50, 9), Seeds(mode="list", listed=(5, 7)))
    assert bench.seeds == [5, 7]
    assert found.log.stopped == "the list holds no more than 2 seeds"


@pytest.mark.parametrize(
    "budget", [{"attempts": 0}, {"calls": 0}, {"seconds": 0}, {"seconds": math.nan}, {"threshold": math.inf}]
)
def test_an_empty_budget_is_refused(budget):
    with pytest.raises(BadInput):
        RerollPolicy(**budget)


def test_a_threshold_needs_a_calibrated_score_before_anything_is_generated():
    bench = Bench([1], RANKS_ONLY)
    with pytest.raises(UncalibratedThreshold, match="Switch the threshold off to use the whole budget"):
        bench.run(RerollPolicy(50))
    with pytest.raises(BadInput, match="0 to 100"):
        Bench([1]).run(RerollPolicy(101))
    assert bench.seeds == []


def test_a_budget_of_calls_needs_a_counter():
    with pytest.raises(BadInput, match="counter"):
        Bench([1]).run(RerollPolicy(calls=5), calls=None)


def test_memory_holds_the_best_alone_unless_all_are_wanted():
    assert Bench([1, 9, 3]).run(RerollPolicy(None, 3)).images == ()
    assert Bench([1, 9, 3]).run(RerollPolicy(None, 3), keep_images=True).images == (1, 9, 3)


def test_an_error_of_the_generator_goes_through():
    with pytest.raises(IndexError):
        Bench([1]).run(RerollPolicy(50, 2))


def test_scores_of_two_scorers_are_not_mixed():
    bench = Bench([1, 2])
    state = bench.run(RerollPolicy(50, 1)).log
    other = Bench([1], LOWER).run(RerollPolicy(50, 1)).log
    with pytest.raises(BadInput, match="one scorer"):
        state.add(other.attempts[0])


def test_the_log_in_both_forms():
    log = Bench([10, None, 60]).run(RerollPolicy(50, 9)).log
    plain = json.loads(json.dumps(to_dict(log), allow_nan=False))
    assert plain["stopped"] == "attempt 3 reached the threshold 50"
    assert plain["passed"] is True
    assert plain["best"]["seed"] == 102
    assert [row["score"] for row in plain["attempts"]] == [10, None, 60]
    assert [row["best"] for row in plain["attempts"]] == [False, False, True]
    text = to_text(log)
    assert text.startswith("3 attempts; stopped because attempt 3 reached the threshold 50.\nBest: seed 102, 60.0 ≥")
    lines = text.splitlines()
    assert lines[-4].split() == ["attempt", "seed", "score", "passed", "best", "calls", "seconds", "reason"]
    assert lines[-1].split() == ["3", "102", "60.0", "yes", "yes", "20", "2.00"]


def test_several_images_of_one_attempt_are_numbered_through():
    bench = Bench([[10, 70], [30]])
    bench.score = lambda images: Bench.score(bench, images[0])
    log = bench.run(RerollPolicy(None, 2)).log
    assert [(score.index, score.seed) for score in log.scores] == [(0, 100), (1, 100), (2, 101)]
    assert log.best.index == 1
    assert [row["image"] for row in rows(log)] == [0, 1, 0]
