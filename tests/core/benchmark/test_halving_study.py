"""The study of schedules: the simulation follows the policy's rules, costs are the policy's, recordings go on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_critic.core.benchmark.halving_record import (
    Group,
    Recording,
    RecordRequest,
    read_recording,
    read_recordings,
    record_group,
)
from latent_critic.core.benchmark.halving_study import Schedule, Table, measured, schedules, study, winners
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec

SPEC = ScoreSpec("made up", scale=(0.0, 1.0))
REQUEST = RecordRequest(groups=40, candidates=8, steps=10, looks=(1, 3, 6), size=32)


def groups_of(previews, finals, prompts=10):
    return {
        place: Group(place, f"prompt {place % prompts}", tuple(map(tuple, seen)), tuple(end))
        for place, (seen, end) in enumerate(zip(previews, finals, strict=True))
    }


def made(noise, groups=40, candidates=8, seed=0, direction="higher"):
    """A table whose previews are the final scores and this much noise."""
    draw = np.random.default_rng(seed)
    finals = draw.normal(size=(groups, candidates))
    previews = finals[:, None] + noise * draw.normal(size=(groups, len(REQUEST.looks), candidates))
    heading = {
        "spec": {"direction": direction},
        "request": {"looks": list(REQUEST.looks), "steps": REQUEST.steps, "ahead": [0]},
    }
    return Table.of(heading, groups_of(previews.tolist(), finals.tolist()))


def batch(values):
    scores = [Score(None, place, reason="none") if v < -1e29 else Score(v, place) for place, v in enumerate(values)]
    return ScoreBatch(SPEC, tuple(scores))


def test_the_simulation_is_what_the_policy_does():
    table = made(1.0, groups=12)
    table.previews[3, 0, :3] = -1e30  # no score
    table.previews[4, 1] = 0.5  # all equal
    for schedule in list(schedules(table))[::7]:
        policy, found = schedule.policy(8), winners(table, schedule)
        for row in range(12):
            live = list(range(8))
            for look, step in enumerate(schedule.looks):
                seen = batch([table.previews[row, table.looks.index(step), place] for place in live])
                live = [live[place] for place in policy.survivors(look, seen)]
            assert len(live) == schedule.kept[-1]
            assert found[row] == live[batch([table.finals[row, place] for place in live]).ranking()[0]]


def test_the_cost_is_the_policys():
    for schedule in schedules(made(1.0)):
        looks = [step / 10 for step in schedule.looks]
        assert schedule.cost(8) == pytest.approx(schedule.policy(8).cost(8, looks))
        tried = replace(schedule, ahead=(2,) * len(looks))
        assert tried.cost(8) == pytest.approx(tried.policy(8).cost(8, looks, tried.extra))
        assert tried.cost(8) > schedule.cost(8)


def test_the_cost_of_short_runs_by_hand():
    # 8 look after 1 of 10 steps and try 1 more, 4 go on to step 9, where one level is left to try, and 2 end.
    schedule = Schedule((1, 9), (4, 2), 10, ahead=(1, 1))
    assert schedule.cost(8) == pytest.approx((8 * 2 + 4 * 8 + 4 * 1 + 2 * 1) / 80)


def test_perfect_previews_cost_least_and_useless_ones_are_chance():
    perfect = study(made(0.0))
    assert all(row["top3"] == row["best"] == 1 and row["lost_in_spreads"] == 0 for row in perfect["chosen"])
    assert all(row["srcc"] == pytest.approx(1) for row in perfect["agreement"])
    chance = measured(made(1e9, groups=2000), Schedule((1,), (2,), 10))
    expected = next(row for row in perfect["random"] if row["finished"] == 2)
    assert chance["top3"] == pytest.approx(expected["top3"], abs=0.04)
    assert chance["top3_low"] < expected["top3"] < chance["top3_high"]


def test_better_previews_are_worth_more():
    found = [measured(made(noise, groups=400), Schedule((1, 3), (4, 1), 10))["top3"] for noise in (0.0, 0.5, 1.5, 5.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1 > found[-1] + 0.2


def test_where_lower_is_better():
    higher = made(0.3)
    lower = replace(higher, previews=-higher.previews, finals=-higher.finals)
    groups = groups_of(lower.previews.tolist(), lower.finals.tolist())
    heading = {"spec": {"direction": "lower"}, "request": {"looks": list(REQUEST.looks), "steps": 10, "ahead": [0]}}
    assert study(Table.of(heading, groups)) == study(higher)


def test_no_prompt_lies_in_both_halves():
    table = made(1.0)
    one, other = table.half(True, 5), table.half(False, 5)
    assert not set(one.prompts) & set(other.prompts)
    assert len(one.prompts) + len(other.prompts) == 40
    assert abs(len(one.prompts) - len(other.prompts)) <= 8
    assert all(row["groups"] == len(other.prompts) for row in study(table, seed=5)["chosen"])


def test_a_budget_is_kept():
    for row in study(made(0.5))["chosen"]:
        assert row["cost"] <= row["budget"] + 1e-9
        assert row["top3_low"] <= row["top3"] <= row["top3_high"]


def test_too_few_groups_are_refused():
    with pytest.raises(BadInput, match="at least 4"):
        Table.of({"spec": {}, "request": {}}, {})


class Brightness:
    spec = SPEC

    def score(self, images, prompts=None, *, watch=None):
        return batch([float(image.mean()) for image in images])


def sampler(prompt, seeds):
    for look in range(4):
        yield torch.stack([torch.full((3, 4, 4), (seed % 7 + look) / 10) for seed in seeds])


def test_a_recording_goes_on_where_it_was_cut(tmp_path):
    path = tmp_path / "deep/record.jsonl"
    first = Recording(path, REQUEST, SPEC, "model")
    for number in range(3):
        first.add(record_group(REQUEST, sampler, Brightness(), number))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = Recording(path, replace(REQUEST, groups=99), SPEC, "model")
    assert sorted(again.groups) == [0, 1]
    again.add(record_group(REQUEST, sampler, Brightness(), 2))
    assert path.read_bytes() == whole
    assert read_recording(path)[1] == first.groups
    assert [len(row) for row in again.groups[2].previews] == [8, 8, 8]


def test_other_settings_do_not_mix(tmp_path):
    path = tmp_path / "a.jsonl"
    Recording(path, REQUEST, SPEC, "model").add(record_group(REQUEST, sampler, Brightness(), 0))
    with pytest.raises(BadInput, match="another one"):
        Recording(path, replace(REQUEST, steps=20), SPEC, "model")
    with pytest.raises(BadInput, match="another one"):
        Recording(path, REQUEST, SPEC, "other weights")
    other = tmp_path / "b.jsonl"
    Recording(other, REQUEST, SPEC, "model").add(record_group(REQUEST, sampler, Brightness(), 1))
    assert sorted(read_recordings([path, other])[1]) == [0, 1]
    Recording(tmp_path / "c.jsonl", replace(REQUEST, seed=1), SPEC, "model")
    with pytest.raises(BadInput, match="other settings"):
        read_recordings([path, tmp_path / "c.jsonl"])
    (tmp_path / "no.jsonl").write_text(json.dumps({"x": 1}) + "\n")
    with pytest.raises(UnreadableFile):
        read_recording(tmp_path / "no.jsonl")


def test_prompts_and_seeds_are_the_groups_own():
    assert REQUEST.prompt(3) == REQUEST.prompt(3)
    assert len({REQUEST.prompt(number) for number in range(40)}) > 20
    assert len({seed for number in range(40) for seed in REQUEST.seeds(number)}) == 40 * 8


@pytest.mark.parametrize(
    "change", [{"looks": ()}, {"looks": (3, 1)}, {"looks": (10,)}, {"candidates": 2}, {"groups": 1}, {"ahead": (1, 2)}]
)
def test_bad_requests(change):
    with pytest.raises(BadInput):
        replace(REQUEST, **change)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_last_look_is_the_pipelines_own_picture(diffusers, guidance):
    from latent_critic.core.hosts.diffusers.embedded import load_embedded
    from latent_critic.core.hosts.diffusers.sampling import predicted_clean, to_images

    pipeline = load_embedded()
    pipeline.set_progress_bar_config(disable=True)
    seen = list(predicted_clean(pipeline, "sharp, landscape", [5, 6], size=64, steps=3, guidance=guidance))
    assert len(seen) == 4
    noise = torch.randn((1, 8, 8, 8), generator=torch.Generator().manual_seed(6))
    options = {"num_inference_steps": 3, "guidance_scale": guidance, "output_type": "pt", "latents": noise}
    alone = pipeline("sharp, landscape", height=64, width=64, **options).images
    torch.testing.assert_close(to_images(pipeline, seen[-1])[1:], alone, atol=1e-4, rtol=0)
    # Predictions come nearer to the end.
    far = [float((look - seen[-1]).square().mean()) for look in seen[:-1]]
    assert far == sorted(far, reverse=True)


def test_a_short_run_leaves_no_trace_and_a_full_one_is_the_rest(diffusers):
    from latent_critic.core.hosts.diffusers.embedded import load_embedded
    from latent_critic.core.hosts.diffusers.sampling import predicted_clean

    pipeline = load_embedded()
    asked = []
    pipeline.unet.register_forward_pre_hook(lambda module, args: asked.append(len(args[0])))
    plan = {"size": 64, "steps": 5, "guidance": 3.0}
    *plain, end = predicted_clean(pipeline, "sharp, landscape", [5, 6], **plan)
    assert len(asked) == 5
    looks = {1: 99, 2: 1, 3: 0}
    tried = list(predicted_clean(pipeline, "sharp, landscape", [5, 6], **plan, looks=looks))
    assert len(asked) == 5 + 5 + 4 + 1
    assert len(tried) == 4
    assert torch.equal(tried[-1], end)
    assert torch.equal(tried[2], plain[2])
    # With all levels that are left it is DDIM's own way, to the last prediction.
    torch.testing.assert_close(tried[0], plain[-1], atol=1e-4, rtol=1e-3)
    far = [float((look - end).square().mean()) for look in (plain[1], tried[1], tried[0])]
    assert far == sorted(far, reverse=True)


def test_known_ends_are_not_sampled_again(tmp_path):
    first = Recording(tmp_path / "a.jsonl", REQUEST, SPEC, "model")
    whole = record_group(REQUEST, sampler, Brightness(), 3)
    first.add(whole)
    other = replace(REQUEST, looks=(2,), ahead=(1,))
    second = Recording(tmp_path / "b.jsonl", other, SPEC, "model")
    finals = second.finals_of([tmp_path / "a.jsonl"])
    assert finals == {3: whole.finals}
    passed = []

    def counted(prompt, seeds):
        for images in sampler(prompt, seeds):
            passed.append(len(images))
            yield images

    found = record_group(other, counted, Brightness(), 3, finals[3])
    assert found.finals == whole.finals
    assert len(found.previews) == len(passed) == 1
    Recording(tmp_path / "c.jsonl", replace(REQUEST, seed=1), SPEC, "model").add(whole)
    with pytest.raises(BadInput, match="finished pictures as"):
        second.finals_of([tmp_path / "c.jsonl"])
