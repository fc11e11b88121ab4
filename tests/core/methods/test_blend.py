"""Blending: fixed scales, missing parts, weights, and when a blend stays calibrated."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.blend import Blend, blend, blended_spec
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec

PHOTOS = ScoreSpec("judge", scale=(0, 100), calibrated_on="photographs", centre=50, spread=10, blind_to="hands")
MODEL = ScoreSpec("zero_shot", centre=1.0, spread=2.0, needs=("image", "model"), backbone="abc", blind_to="faces")
LOWER = ScoreSpec("brisque", direction="lower", centre=30, spread=15)

finite = st.floats(-1e6, 1e6)
values = st.lists(st.tuples(finite, finite), min_size=1, max_size=6)


def batch(spec, *numbers, **rest):
    return ScoreBatch(
        spec,
        tuple(
            Score(None, i, reason="NaN pixels", **rest) if number is None else Score.of(number, i, **rest)
            for i, number in enumerate(numbers)
        ),
    )


def test_alike_calibrated_parts_give_the_weighted_mean_on_the_scale():
    other = ScoreSpec("lgdm", scale=(0, 100), calibrated_on="photographs", centre=60, spread=20)
    result = blend([batch(PHOTOS, 80, 20), batch(other, 40, 60)], [3, 1])
    assert result.values() == [70, 30]
    assert result.spec.calibrated_on == "photographs"
    assert result.spec.scale == (0, 100)
    assert (result.spec.centre, result.spec.spread) == (52.5, 12.5)


@pytest.mark.parametrize(
    "other",
    [
        MODEL,
        ScoreSpec("lgdm", scale=(0, 100), calibrated_on="your ratings"),
        ScoreSpec("lgdm", scale=(0, 10), calibrated_on="photographs"),
        ScoreSpec("lgdm", scale=(0, 100), calibrated_on="photographs", direction="lower"),
    ],
    ids=["uncalibrated", "other ratings", "other scale", "other direction"],
)
def test_unlike_parts_make_an_uncalibrated_blend(other):
    spec = blended_spec([PHOTOS, other])
    assert not spec.calibrated
    assert spec.scale is None
    assert spec.direction == "higher"


def test_uncalibrated_blend_by_hand():
    """(70-50)/10 = 2; (0-1)/2 = -.5; lower is better: -(0-30)/15 = 2."""
    result = blend([batch(PHOTOS, 70), batch(MODEL, 0.0), batch(LOWER, 0.0)], [1, 1, 2])
    assert result.values()[0] == pytest.approx((2 - 0.5 + 4) / 4)
    assert result.spec.needs == ("image", "model")
    assert result.spec.backbone == "abc"
    assert "judge: hands" in result.spec.blind_to


def test_what_the_parts_do_not_see_is_said_once():
    """Two scorers of one kind say the same, whatever their settings."""
    found = blended_spec([MODEL, PHOTOS, replace(MODEL, settings={"side": 64})]).blind_to
    assert found == "zero_shot: faces; judge: hands"
    assert blended_spec([replace(MODEL, blind_to="faces."), PHOTOS]).blind_to == "zero_shot: faces; judge: hands"


@given(values, st.floats(0.01, 10), st.floats(0.01, 10))
def test_batch_mates_change_nothing(pairs, first, second):
    whole = blend([batch(PHOTOS, *[a for a, _ in pairs]), batch(MODEL, *[b for _, b in pairs])], [first, second])
    for (a, b), score in zip(pairs, whole, strict=True):
        assert blend([batch(PHOTOS, a), batch(MODEL, b)], [first, second]).values() == [score.value]


@given(values, st.floats(0.01, 10), st.floats(0.01, 10), st.floats(1e-3, 1e3))
def test_order_of_parts_and_unit_of_weights_change_nothing(pairs, first, second, unit):
    one, two = batch(PHOTOS, *[a for a, _ in pairs]), batch(MODEL, *[b for _, b in pairs])
    there = blend([one, two], [first, second]).values()
    back = blend([two, one], [second * unit, first * unit]).values()
    assert back == pytest.approx(there, rel=1e-9, abs=1e-9)


@given(st.lists(finite, min_size=1, max_size=6))
def test_one_part_keeps_its_ranking(numbers):
    part = batch(LOWER, *numbers)
    assert blend([part]).ranking() == part.ranking()


@given(values)
def test_blend_lies_between_its_parts(pairs):
    for (a, b), score in zip(
        pairs, blend([batch(MODEL, *[a for a, _ in pairs]), batch(MODEL, *[b for _, b in pairs])]), strict=True
    ):
        low, high = sorted([MODEL.goodness(a), MODEL.goodness(b)])
        assert low - 1e-6 <= score.value <= high + 1e-6


def test_a_missing_part_is_a_reason_for_that_image_alone():
    result = blend([batch(PHOTOS, 80, None), batch(MODEL, 1.0, 1.0)])
    assert result[0].ok
    assert result[1].reason == "judge: NaN pixels"
    assert result[1].index == 1


def test_a_part_of_weight_zero_is_left_out_even_when_missing():
    result = blend([batch(PHOTOS, 80), batch(MODEL, None)], [1, 0])
    assert result.values() == [80]
    assert result.spec.calibrated_on == "photographs"


def test_seeds_paths_and_warnings_stay():
    one = batch(PHOTOS, 80, seed=7, attributes={"path": "a.png", "view": 1, "warnings": ("small",)})
    two = batch(MODEL, 3.0, attributes={"path": "a.png", "view": 2})
    score = blend([one, two])[0]
    assert score.seed == 7
    assert score.attributes["path"] == "a.png"
    assert "view" not in score.attributes
    assert score.attributes["warnings"] == ["judge: small"]
    assert [part["value"] for part in score.attributes["parts"]] == [80, 3.0]


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [1, -1], [1, math.nan], [1, math.inf], []])
def test_bad_weights(weights):
    with pytest.raises(BadInput, match="weights"):
        blend([batch(PHOTOS, 1), batch(MODEL, 1)], weights)


def test_nothing_to_blend():
    with pytest.raises(BadInput, match="part"):
        blend([])


def test_different_images_are_refused():
    with pytest.raises(BadInput, match="same images"):
        blend([batch(PHOTOS, 1, 2, 3), batch(MODEL, 1, 2)])
    filtered = batch(PHOTOS, 1, 2, 3).take([0, 2])
    with pytest.raises(BadInput, match="same images"):
        blend([filtered, batch(MODEL, 1, 2)])


def test_an_empty_batch_blends_to_an_empty_batch():
    assert len(blend([ScoreBatch(PHOTOS, ()), ScoreBatch(MODEL, ())])) == 0


class Fixed:
    """A scorer with given numbers that reports two steps."""

    def __init__(self, spec, *numbers):
        self.spec, self.numbers = spec, numbers

    def score(self, images, prompts=None, *, watch=None):
        for done in (1, 2):
            if watch:
                watch(done, 2)
        return batch(self.spec, *self.numbers)


def test_blend_scorer_equals_blend_and_counts_on():
    seen = []
    scorer = Blend([Fixed(PHOTOS, 70.0), Fixed(MODEL, 3.0)], [1, 3])
    result = scorer.score([None], watch=lambda done, total: seen.append((done, total)))
    assert result == blend([batch(PHOTOS, 70.0), batch(MODEL, 3.0)], [1, 3])
    assert scorer.spec == result.spec
    assert seen == [(500, 2000), (1000, 2000), (1500, 2000), (2000, 2000)]


def test_interrupt_leaves_through_a_blend():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Blend([Fixed(PHOTOS, 70.0)]).score([None], watch=stop)
