import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput, UncalibratedThreshold
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
from latent_critic.core.selection.policy import Policy, percentile_count, select

JUDGE = ScoreSpec("judge", scale=(0.0, 100.0), calibrated_on="photographs")
LOWER = ScoreSpec("damage", direction="lower", scale=(0.0, 100.0), calibrated_on="photographs")
RANKS_ONLY = ScoreSpec("zero_shot")
#: A busy machine may pause in the middle of an example.
UNHURRIED = settings(deadline=None)


def batch(values, spec=JUDGE):
    return ScoreBatch(spec, tuple(Score.of(math.nan if v is None else v, i) for i, v in enumerate(values)))


values = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 50.0, 100.0]), st.floats(0, 100)), max_size=12)
specs = st.sampled_from([JUDGE, LOWER])


@st.composite
def policies(draw):
    floor = draw(st.integers(0, 5))
    return Policy(
        threshold=draw(st.none() | st.floats(0, 100)),
        top_k=draw(st.none() | st.integers(1, 9)),
        percentile=draw(st.none() | st.floats(0, 100)),
        floor=floor,
        cap=draw(st.none() | st.integers(max(1, floor), 9)),
    )


def goodness(scores, place):
    return scores.spec.goodness(scores[place].value)


@UNHURRIED
@given(values, specs, policies())
def test_every_place_is_on_exactly_one_side_and_has_a_reason(numbers, spec, policy):
    chosen = select(batch(numbers, spec), policy)
    assert sorted((*chosen.kept, *chosen.rejected)) == list(range(len(numbers)))
    assert list(chosen.kept) == sorted(chosen.kept)
    assert list(chosen.rejected) == sorted(chosen.rejected)
    assert len(chosen.why) == len(numbers)
    assert all(chosen.why)
    assert sorted(chosen.kept_best_first) == list(chosen.kept)
    assert sorted(chosen.rejected_best_first) == list(chosen.rejected)


@UNHURRIED
@given(values, specs, policies())
def test_missing_scores_never_pass_and_say_why(numbers, spec, policy):
    chosen = select(batch(numbers, spec), policy)
    for place, value in enumerate(numbers):
        if value is None:
            assert place in chosen.rejected
            assert chosen.why[place] == "not scored: the scorer returned nan"


@UNHURRIED
@given(values, specs, policies())
def test_a_kept_image_is_never_worse_than_a_rejected_scored_one(numbers, spec, policy):
    scores = batch(numbers, spec)
    chosen = select(scores, policy)
    lost = [place for place in chosen.rejected if scores[place].ok]
    assert all(goodness(scores, kept) >= goodness(scores, gone) for kept in chosen.kept for gone in lost)


@UNHURRIED
@given(values, specs, policies())
def test_floor_cap_and_top_k_hold(numbers, spec, policy):
    scored = sum(v is not None for v in numbers)
    kept = len(select(batch(numbers, spec), policy).kept)
    assert kept >= min(policy.floor, scored)
    assert policy.cap is None or kept <= policy.cap
    assert policy.top_k is None or kept <= max(policy.top_k, policy.floor)


@UNHURRIED
@given(values, specs, policies())
def test_against_a_plain_loop(numbers, spec, policy):
    """An independent implementation: sort, filter rule by rule, floor, cap."""
    sign = -1 if spec.direction == "higher" else 1
    order = sorted((sign * v, i) for i, v in enumerate(numbers) if v is not None)
    passing = []
    for rank, (key, place) in enumerate(order):
        ok = policy.threshold is None or key <= sign * policy.threshold
        ok &= policy.top_k is None or rank < policy.top_k
        ok &= policy.percentile is None or rank < max(1, math.ceil(len(order) * (1 - policy.percentile / 100) - 1e-9))
        if ok:
            passing.append(place)
    if len(passing) < policy.floor:
        passing = [place for _, place in order][: policy.floor]
    expected = passing[: policy.cap] if policy.cap is not None else passing
    assert select(batch(numbers, spec), policy).kept_best_first == tuple(expected)


@UNHURRIED
@given(values.filter(bool), st.integers(1, 6))
def test_ties_keep_their_order(numbers, k):
    tied = [None if v is None else 50.0 for v in numbers]
    chosen = select(batch(tied), Policy(top_k=k))
    assert list(chosen.kept) == [i for i, v in enumerate(tied) if v is not None][:k]


@UNHURRIED
@given(st.floats(0, 100), st.integers(1, 300))
def test_the_percentile_keeps_the_best_share(percentile, scored):
    count = percentile_count(percentile, scored)
    assert 1 <= count <= scored
    assert abs(count - scored * (100 - percentile) / 100) <= 1


@pytest.mark.parametrize(
    ("percentile", "scored", "count"), [(75, 8, 2), (0, 8, 8), (100, 8, 1), (90, 10, 1), (50, 5, 3)]
)
def test_percentile_examples(percentile, scored, count):
    assert percentile_count(percentile, scored) == count


def test_reasons_read_well():
    scores = batch([62.1, 81.0, 75.0, None, 90.0])
    assert select(scores, Policy(threshold=70)).why == (
        "62.1 < threshold 70",
        "81.0 ≥ threshold 70, rank 2 of 4",
        "75.0 ≥ threshold 70, rank 3 of 4",
        "not scored: the scorer returned nan",
        "90.0 ≥ threshold 70, rank 1 of 4",
    )
    assert select(scores, Policy(top_k=3)).why[0] == "rank 4 of 4, kept top 3"
    assert select(scores, Policy(percentile=75)).why[1] == "rank 2 of 4, below percentile 75 (best 1 kept)"
    assert select(scores, Policy(cap=2)).why[2] == "rank 3 of 4, cap 2"
    assert select(scores, Policy(threshold=95, floor=1)).why[4] == (
        "rank 1 of 4, kept by floor 1 although 90.0 < threshold 95"
    )
    assert select(scores, Policy(threshold=70, top_k=2)).why[0] == "62.1 < threshold 70; rank 4 of 4, kept top 2"


def test_a_value_just_below_the_threshold_does_not_read_like_it():
    assert select(batch([69.99999]), Policy(threshold=70)).why == ("69.99999 < threshold 70",)


def test_lower_is_better():
    chosen = select(batch([5.0, 20.0, 10.0], LOWER), Policy(threshold=10))
    assert chosen.kept == (0, 2)
    assert chosen.ranking == (0, 2, 1)
    assert chosen.why[1] == "20.0 > threshold 10"
    assert chosen.why[2] == "10.0 ≤ threshold 10, rank 2 of 3"


def test_an_uncalibrated_score_takes_ranks_but_no_threshold():
    scores = batch([0.3, 0.1, 0.2], RANKS_ONLY)
    assert select(scores, Policy(top_k=1)).kept == (0,)
    assert select(scores, Policy(percentile=50)).kept == (0, 2)
    with pytest.raises(UncalibratedThreshold, match="top k or percentile"):
        select(scores, Policy(threshold=0.2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": math.nan},
        {"threshold": math.inf},
        {"top_k": 0},
        {"percentile": -1},
        {"percentile": 101},
        {"percentile": math.nan},
        {"floor": -1},
        {"cap": 0},
        {"floor": 3, "cap": 2},
    ],
)
def test_senseless_policies_are_refused(wrong):
    with pytest.raises(BadInput):
        Policy(**wrong)


@pytest.mark.parametrize("threshold", [-0.1, 100.5])
def test_a_threshold_off_the_scale_is_refused(threshold):
    with pytest.raises(BadInput, match="0 to 100"):
        select(batch([50.0]), Policy(threshold=threshold))


def test_an_empty_batch_gives_an_empty_selection():
    chosen = select(batch([]), Policy(top_k=1, floor=1))
    assert chosen.kept == chosen.rejected == chosen.why == chosen.ranking == ()
