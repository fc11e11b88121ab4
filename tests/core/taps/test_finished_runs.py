"""Features of finished samplings: which forward stands for a level, what is whole, what is found again."""

import pytest
import torch
from latent_critic.core.backbone.contracts import Tap
from latent_critic.core.errors import BadInput
from latent_critic.core.taps.finished_runs import FinishedRuns, FirstOfEach, ProbePlan, Run, digest
from latent_critic.core.taps.recorder import Grid, Key, Record
from latent_critic.core.taps.reducers import mean_std

TAPS = (Tap("mid", "feature", 3, 2), Tap("up.0", "feature", 2, 1))
PLAN = ProbePlan(TAPS, (4.0, 0.5))


def recorder(rows=2, branches=("cond/a", "uncond/b"), taps=TAPS, add=0.0):
    found = FirstOfEach.of(TAPS, mean_std)
    for tap in taps:
        for number, branch in enumerate(branches):
            for row in range(rows):
                value = torch.arange(2.0 * tap.channels) + 100 * number + 10 * row + add
                found.put(Record(Key(tap.name, 0, branch, row), 1.0, Grid(1, 1), value))
    return found


def test_the_nearest_forward_of_each_level_stays():
    run = Run(rows=2)
    assert run.wanted(PLAN, 14.0) == []
    assert run.wanted(PLAN, 7.0) == [0]
    run.take(PLAN, [0], 7.0, recorder(add=1))
    assert run.wanted(PLAN, 5.0) == [0]
    run.take(PLAN, [0], 5.0, recorder(add=2))
    assert run.wanted(PLAN, 2.5) == []  # further away than what is there
    assert run.wanted(PLAN, 0.4) == [1]
    assert run.used == {0: 5.0}
    assert run.features[(0, "cond")][0, 0] == 2.0
    assert run.visited == [14.0, 7.0, 5.0, 2.5, 0.4]


def test_of_two_forwards_at_one_noise_level_the_later_one_stays():
    run = Run(rows=2)
    for add in (1, 2):
        assert run.wanted(PLAN, 4.5) == [0]
        run.take(PLAN, [0], 4.5, recorder(add=add))
    assert run.features[(0, "cond")][0, 0] == 2.0


def test_what_is_not_whole_is_not_kept():
    run = Run(rows=2)
    run.take(PLAN, [0], 4.0, recorder(taps=TAPS[:1]))
    assert run.missed == {0}
    assert not run.features
    run.take(PLAN, [0], 4.0, recorder(rows=1))
    assert not run.features
    run.take(PLAN, [0], 4.0, recorder(branches=("cond/a",)))
    assert set(run.features) == {(0, "cond")}
    assert not run.missed


def test_conditions_of_one_branch_are_their_mean_and_the_first_answer_of_each_stays():
    found = recorder(branches=("cond/a", "cond/c"))
    found.put(Record(Key("mid", 0, "cond/a", 0), 1.0, Grid(1, 1), torch.full((6,), 1e6)))
    run = Run(rows=2)
    run.take(PLAN, [1], 0.5, found)
    assert run.features[(1, "cond")][0].tolist() == [50, 51, 52, 53, 54, 55, 50, 51, 52, 53]


def test_rows_are_found_by_content():
    runs = FinishedRuns(PLAN)
    latents = torch.randn(2, 4, 3, 3)
    run = Run(rows=2)
    for level, sigma in enumerate(PLAN.sigmas):
        run.wanted(PLAN, sigma)
        run.take(PLAN, [level], sigma, recorder())
    runs.add(run, latents)
    second, first = runs.find(latents.flip(0))
    assert (first.row, second.row) == (0, 1)
    assert first.features(PLAN).tolist() == [*range(6), *range(4)] * 2
    assert len(first.features(PLAN, ("cond", "uncond"))) == 4 * PLAN.length
    assert isinstance(runs.find(latents[:, :, :2])[0], str)
    assert digest(latents[0]) != digest(latents[0].reshape(4, 9))
    assert digest(latents[0]) == digest(latents.clone()[0])


def test_a_result_of_another_number_of_rows_is_not_kept():
    runs = FinishedRuns(PLAN)
    runs.add(Run(rows=2), torch.zeros(3, 4, 3, 3))
    assert len(runs) == 0


def test_memory_is_bounded_and_the_newest_run_stays():
    runs = FinishedRuns(ProbePlan(TAPS, (4.0,), most_bytes=400))
    latents = [torch.full((2, 1, 1, 1), float(number)) for number in range(6)]
    for latent in latents:
        run = Run(rows=2)
        run.take(PLAN, [0], 4.0, recorder())
        runs.add(run, latent)
    assert len(runs) == 2
    assert runs.bytes() == 2 * 2 * 2 * 10 * 4
    assert "dropped" in runs.find(latents[0])[0]
    assert runs.find(latents[-1])[0].run.number == 6


def test_reasons_name_what_is_missing():
    run = Run(rows=2, visited=[14.6, 0.03])
    runs = FinishedRuns(PLAN)
    runs.add(run, torch.zeros(2, 1, 1, 1))
    (found, _) = runs.find(torch.zeros(2, 1, 1, 1))
    assert "never came near sigma 4, which the probe wants (it visited 14.6, 0.03)" in found.features(PLAN)
    run.visited.append(4.1)
    assert "without computing every block" in found.features(PLAN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"taps": ()},
        {"taps": (Tap("down.0", "attention", 8, 1),)},
        {"sigmas": ()},
        {"sigmas": (0.0,)},
        {"sigmas": (float("nan"),)},
        {"within": 1.0},
    ],
)
def test_bad_plans_are_refused(wrong):
    with pytest.raises(BadInput):
        ProbePlan(**{"taps": TAPS, "sigmas": (1.0,), **wrong})
