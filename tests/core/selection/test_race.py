"""Looks, early abort and the race: who goes on, who is dropped, and why."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput
from latent_critic.core.hosts.short_run import leaps
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.selection.abort import LEAST_HISTORY, EarlyAbort, quantile
from latent_critic.core.selection.halving import Halving
from latent_critic.core.selection.looks import Looks, Mark, parse_counts, parse_numbers, until_none_can_drop
from latent_critic.core.selection.race import Candidate, Race, RacePolicy
from latent_critic.core.selection.race_log import headline, rows, to_dict, to_text

SPEC = ScoreSpec("made up", scale=(0.0, 100.0), centre=50.0, spread=7.0)
LOWER = ScoreSpec("error", direction="lower", centre=3.0, spread=0.3)

#: A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def batch(values, spec=SPEC):
    scores = (Score(None, i, reason="broken") if v is None else Score(float(v), i) for i, v in enumerate(values))
    return ScoreBatch(spec, tuple(scores))


def race(count, **policy):
    return Race(tuple(Candidate(100 + number) for number in range(count)), RacePolicy(**policy), steps=10)


@pytest.mark.parametrize(
    ("at", "keep", "steps", "marks"),
    [
        ((0.2, 0.4), (0.5, 0.25), 10, ((2, 0.5, 1), (4, 0.25, 2))),
        ((0.2, 0.4), (0.5,), 10, ((2, 0.5, 1), (4, 0.5, 2))),
        ((0.2, 0.4), (0.5, 0.25), 3, ((1, 0.125, 1),)),  # both after step 1
        ((0.1, 0.9), (0.5,), 2, ((1, 0.5, 0),)),  # 0.9 of 2 is the end
        ((0.5,), (0.5,), 1, ()),
        ((), (), 10, ()),
        ((0.5,), (0.5,), 0, ()),
    ],
)
def test_marks(at, keep, steps, marks):
    assert Looks(at, keep, (1, 2)).marks(steps) == Looks(at, keep, (1, 2, 9)).marks(steps) == marks
    assert all(mark.ahead == min(3, (steps - mark.step) // 2) for mark in Looks(at, keep, (3,)).marks(steps))


def calls(steps, candidates, least=1):
    """Denoiser calls of a run with the default looks: those of the live ones, and those of the short runs."""
    marks = until_none_can_drop(Looks().marks(steps), candidates, least)
    live = Halving(tuple(mark.share for mark in marks), least).counts(candidates)
    ends = [*(mark.step for mark in marks), steps]
    way = sum(count * (end - start) for count, start, end in zip(live, [0, *ends], ends, strict=False))
    tried = (count * len(leaps(mark.step, steps, mark.ahead)) for count, mark in zip(live, marks, strict=False))
    return way + sum(tried)


@pytest.mark.parametrize("candidates", [1, 2, 3, 16])
@pytest.mark.parametrize("steps", [2, 3, 4, 6, 10, 20])
def test_the_default_looks_never_cost_more_than_they_save(steps, candidates):
    assert calls(steps, candidates) <= steps * candidates
    assert calls(steps, candidates, least=candidates) == steps * candidates
    if candidates == 1:
        assert calls(steps, candidates) == steps


def test_what_the_default_looks_cost_by_hand():
    assert calls(10, 16) == 16 * (1 + 1) + 5 * (1 + 2) + 2 * 8 == 63
    assert calls(20, 16) == 16 * (2 + 1) + 5 * (2 + 2) + 2 * 16 == 100
    assert calls(10, 3) == 3 * (1 + 1) + 9


def test_looks_end_where_nobody_can_be_dropped():
    marks = (Mark(1, 1.0), Mark(2, 0.5), Mark(3, 0.5), Mark(4, 1.0))
    assert until_none_can_drop(marks, 4, 1) == marks[:3]
    assert until_none_can_drop(marks, 4, 2) == marks[:2]
    assert until_none_can_drop(marks, 4, 9) == until_none_can_drop(marks, 1, 1) == ()


@pytest.mark.parametrize(
    ("at", "keep"),
    [((0.0,), (0.5,)), ((1.0,), (0.5,)), ((0.4, 0.2), (0.5,)), ((0.2, 0.4), (0.5, 0.5, 0.5)), ((0.2,), (0.0,))],
)
def test_looks_that_make_no_sense(at, keep):
    with pytest.raises(BadInput):
        Looks(at, keep)


@pytest.mark.parametrize("ahead", [(), (-1,), (1, -2)])
def test_extra_steps_that_make_no_sense(ahead):
    with pytest.raises(BadInput, match="extra steps of at least 0"):
        Looks((0.2, 0.4), (0.5,), ahead)


def test_whole_numbers_in_words():
    assert parse_counts("1, 2;0", "preview_steps") == (1, 2, 0)
    for text in ("1.5", "inf", "nan", "two"):
        with pytest.raises(BadInput, match="preview_steps as"):
            parse_counts(text, "preview_steps")


def test_numbers_in_words():
    assert parse_numbers(" 0.2,0.4; .6\n1e-1", "looks") == (0.2, 0.4, 0.6, 0.1)
    assert parse_numbers(" ", "looks") == ()
    with pytest.raises(BadInput, match="looks as numbers"):
        parse_numbers("0.2, half", "looks")


@unhurried
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0, 1))
def test_the_quantile_is_numpys(values, q):
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_halving_in_a_race():
    run = race(6)
    assert run.look(2, 5.0, 0.5, batch([10, 60, 30, 60, None, 50])) == (1, 3, 5)
    assert run.live == (1, 3, 5)
    why = run.looks[0].dropped
    assert set(why) == {0, 2, 4}
    assert why[2] == "30.0, rank 4 of 6, best 3 go on"
    assert why[4] == "not scored: broken"
    assert run.look(4, 2.0, 0.25, batch([55, 40, 70])) == (5,)
    run.finish(batch([66.0]).with_seeds([105]))
    run.asked, run.computed = 60, 24
    assert run.winner == Candidate(105)
    assert run.saved == pytest.approx(0.6)
    found = rows(run)
    assert [row["dropped_after"] for row in found] == [2, 4, 2, 4, 2, None]
    assert found[5] == {
        "seed": 105,
        "image": 0,
        "looks": {"2": 50.0, "4": 70.0},
        "dropped_after": None,
        "score": 66.0,
        "best": True,
        "reason": "",
    }
    text = to_text(run, "A hint.")
    assert "1 of 6 candidates finished. Best: seed 105, 66.0." in text
    assert "24 denoiser calls made of 60 for all; 60 % saved" in text
    assert "A hint." in text
    assert "Look after step 2 of 10 (sigma 5): 6 live, 3 dropped." in text
    told = json.loads(json.dumps(to_dict(run)))
    assert told["saved"] == pytest.approx(0.6)
    assert told["best"]["seed"] == 105
    assert told["spec"]["name"] == "made up"


def test_where_lower_is_better():
    run = race(4)
    assert run.look(2, 1.0, 0.5, batch([3.0, 1.0, 2.0, 9.0], LOWER)) == (1, 2)
    aborted = EarlyAbort("of this batch", 0.5).below(batch([3.0, 1.0, 2.0, 9.0], LOWER))
    assert set(aborted) == {0, 3}
    assert aborted[3] == "9 > quantile 0.5 of this batch (2.5)"


def test_a_look_without_any_score_drops_nobody():
    run = race(3)
    assert run.look(2, 1.0, 0.3, batch([None, None, None])) == (0, 1, 2)
    assert "no preview has a score: broken" in run.looks[0].note
    assert "no preview has a score" in to_text(run)


def test_abort_among_the_batch():
    abort = EarlyAbort("of this batch", 0.25)
    found = abort.below(batch([10, 20, 30, 40, None]))
    assert set(found) == {0}
    assert found[0] == "10.0 < quantile 0.25 of this batch (17.5)"
    assert abort.below(batch([10, 20])) == {}  # a quantile of two says nothing
    assert abort.below(batch([7, 7, 7, 7])) == {}
    assert EarlyAbort().below(batch([1, 50, 99])) == {}


def test_abort_against_the_history_of_that_step():
    abort = EarlyAbort("of history", 0.25)
    places = [(10.0, 40), (25.0, 40), (1.0, LEAST_HISTORY - 1), None, (3.0, 40)]
    found = abort.below(batch([10, 20, 30, 40, None]), places)
    assert set(found) == {0}
    assert "quantile 0.10 of 40 earlier ones at this step, below 0.25" in found[0]
    assert abort.below(batch([10, 20, 30])) == {}


def test_an_abort_may_end_everybody_only_when_it_is_told_to():
    places = [(1.0, 50), (2.0, 50)]
    kept = race(2, abort=EarlyAbort("of history", 0.25))
    assert kept.look(2, 1.0, 1.0, batch([10, 20]), places) == (1,)
    ended = race(2, abort=EarlyAbort("of history", 0.25), least=0)
    assert ended.look(2, 1.0, 1.0, batch([10, 20]), places) == ()
    ended.finish(batch([]))
    assert ended.best is None
    assert ended.winner is None
    assert "0 of 2 candidates finished. All were dropped: 10.0 is at quantile" in headline(ended)
    assert to_dict(ended)["best"] is None
    assert to_text(ended)


def test_at_least_so_many_are_finished():
    run = race(8, least=3)
    assert len(run.look(2, 1.0, 0.125, batch(range(8)))) == 3
    aborting = race(8, abort=EarlyAbort("of this batch", 1.0), least=3)
    assert aborting.look(2, 1.0, 1.0, batch(range(8))) == (5, 6, 7)


def test_seed_by_seed():
    run = race(3, abort=EarlyAbort("of history", 0.5))
    low, high = [(10.0, 50)], [(90.0, 50)]
    assert run.look(2, 1.0, 1.0, batch([5]), low, among=[0]) == ()
    assert run.look(2, 1.0, 1.0, batch([80]), high, among=[1]) == (1,)
    assert run.look(2, 1.0, 1.0, batch([6]), low, among=[2]) == ()
    assert run.live == (1,)
    last = race(2, abort=EarlyAbort("of history", 0.5))
    assert last.look(2, 1.0, 1.0, batch([5]), low, among=[0]) == ()
    assert last.look(2, 1.0, 1.0, batch([5]), low, among=[1]) == (1,)  # somebody has to be finished


def test_a_finished_image_without_a_score_never_wins():
    run = race(3)
    run.finish(batch([None, 3, 2]))
    assert run.winner == Candidate(101)
    assert [score.index for score in run.finished] == [0, 1, 2]
    run.finish(batch([None, None, None]))
    assert run.winner is None
    assert "No finished image has a score. The first one: broken" in headline(run)


@pytest.mark.parametrize(
    "make",
    [lambda: race(0), lambda: EarlyAbort("sometimes"), lambda: EarlyAbort("off", 2.0), lambda: RacePolicy(least=-1)],
)
def test_bad_input(make):
    with pytest.raises(BadInput):
        make()


@unhurried
@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=16), st.floats(0.01, 1), st.floats(0, 1))
def test_the_best_scored_one_always_goes_on(values, share, q):
    run = race(len(values), abort=EarlyAbort("of this batch", q))
    going = run.look(1, 1.0, share, batch(values))
    assert going
    scored = [value for value in values if value is not None]
    if scored:
        assert values.index(max(scored)) in going
