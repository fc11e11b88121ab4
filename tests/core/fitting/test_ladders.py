"""Ladders of known damage: what is made, what is held out, and what is claimed."""

import pytest
import torch
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.errors import BadInput
from latent_critic.core.fitting.ladder_check import across_pictures, joined, validated, within_ladders
from latent_critic.core.fitting.ladder_steps import LadderOptions, ladder


def steps_of(pictures, options):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    return [step for place in range(pictures) for step, _ in ladder(image, place, options)]


def test_a_ladder_begins_untouched_and_all_kinds_occur():
    options = LadderOptions()
    image = torch.rand(3, 16, 16)
    made = list(ladder(image, 3, options))
    assert len(made) == options.per_ladders() == 13
    assert made[0][0].severity == 0
    assert torch.equal(made[0][1], image)
    assert [step.severity for step, _ in made[1:4]] == [1, 3, 5]
    assert {step.kind for step in steps_of(11, options)} - {""} == set(KINDS)
    again = list(ladder(image, 3, options))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(made, again, strict=True))


def test_pairs_say_what_is_known():
    steps = steps_of(5, LadderOptions())
    inside, between = within_ladders(steps), across_pictures(steps, 0)
    for a, b in zip(inside.pairs.better.tolist(), inside.pairs.worse.tolist(), strict=True):
        assert steps[a].picture == steps[b].picture
        assert steps[a].severity < steps[b].severity
        assert steps[a].kind in ("", steps[b].kind)
    assert len(inside.pairs.better) == 5 * 4 * 3
    for a, b in zip(between.pairs.better.tolist(), between.pairs.worse.tolist(), strict=True):
        assert steps[a].picture != steps[b].picture
        assert steps[a].severity == 0
        assert steps[b].severity >= 3
    assert len(joined(inside, between).better) == len(inside.kinds) + len(between.kinds)


@pytest.mark.parametrize("known", [True, False])
def test_held_out_steps_are_told_only_where_features_tell_them(known):
    """Features that show damage are told; random ones are told half of the time, whatever they were fitted to."""
    options = LadderOptions()
    steps = steps_of(24, options)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(len(steps), 200, generator=draw, dtype=torch.float64) / 14.0
    if known:
        x[:, 7] -= torch.tensor([step.severity for step in steps])
    fold = [step.picture % 4 for step in steps]
    _, report = validated(x, steps, fold, within_ladders(steps), across_pictures(steps, 0), None, options)
    assert report.steps + report.unseen_steps == 24 * 12
    if known:
        assert report.falling > 0.95
        assert report.unseen_falling > 0.95
    else:
        assert 0.35 < report.falling < 0.65
        assert report.low < report.falling < report.high


@pytest.mark.parametrize(
    "fields",
    [{"kinds": ("scratches",)}, {"per_picture": 0}, {"severities": (3, 1)}, {"severities": ()}, {"prior": 2.0}],
)
def test_ladders_that_make_no_sense_are_refused(fields):
    with pytest.raises(BadInput):
        LadderOptions(**fields)
