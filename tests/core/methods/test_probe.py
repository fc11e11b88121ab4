"""Heads on finished samplings: collected, fitted, applied; what is not known is a reason, what differs is named."""

from types import SimpleNamespace

import pytest
import torch
from latent_critic.core.backbone.contracts import Family, Tap
from latent_critic.core.backbone.fingerprint import Fingerprint
from latent_critic.core.errors import BadInput, MismatchedBackbone
from latent_critic.core.heads.head_file import load_head, save_head
from latent_critic.core.heads.rated_runs import RatedRuns
from latent_critic.core.methods.probe import ProbeScorer, layout_of, look_up
from latent_critic.core.methods.probe_fit import Target, fit_probe_head, rows_of, told_of
from latent_critic.core.records import ScoreSpec
from latent_critic.core.taps.finished_runs import FinishedRuns, ProbePlan, Run

TAPS = (Tap("mid", "feature", 6, 2), Tap("up.0", "feature", 4, 1))
JUDGE = Target.scores(ScoreSpec("judge", scale=(0.0, 100.0), calibrated_on="photographs"))


class MadeUpRuns:
    """A probe after ``count`` samplings of two images; the target of each image is linear in its features."""

    def __init__(self, count=30, prompts=6, sigmas=(2.0, 0.5), seed=0, missing=()):
        self.plan = ProbePlan(TAPS, sigmas)
        self.family = Family("sd15", "eps", 4, 8, 512, "clip_l", TAPS)
        self.fingerprint = Fingerprint("sd15", tuple(torch.linspace(-1, 1, 256).tolist()))
        self.identity = {"model": "plain"}
        self._runs = FinishedRuns(self.plan)
        draw = torch.Generator().manual_seed(seed)
        weights = torch.linspace(-1, 1, len(sigmas) * self.plan.length)
        latents, targets = [], []
        for number in range(count):
            run = Run(rows=2, text=f"prompt {number % prompts}", visited=list(sigmas))
            for level, sigma in enumerate(sigmas):
                if level not in missing:
                    run.features[(level, "cond")] = torch.rand(2, self.plan.length, generator=draw)
                    run.used[level] = sigma
            latent = torch.randn(2, 4, 2, 2, generator=draw)
            self._runs.add(run, latent)
            latents.append(latent)
            if not missing:
                rows = torch.cat([run.features[(level, "cond")] for level in range(len(sigmas))], dim=1)
                targets.append(50 + 6 * (rows - 0.5) @ weights)
        self.latents = torch.cat(latents)
        self.targets = torch.cat(targets).tolist() if targets else []

    def find(self, latents):
        return self._runs.find(latents)


@pytest.fixture(scope="module")
def sampled():
    return MadeUpRuns()


@pytest.fixture
def collected(tmp_path, sampled):
    def make(probe=sampled, target=JUDGE, name="mine", targets=None):
        store = RatedRuns(tmp_path / f"{name}.sqlite")
        rows, _ = rows_of(probe, probe.latents, probe.targets if targets is None else targets, "session")
        store.add(told_of(probe, target), rows)
        return store.read()

    return make


def test_a_head_fitted_to_finished_runs_scores_new_ones(sampled, collected, tmp_path):
    head, told = fit_probe_head(sampled, JUDGE, collected(), "mine")
    assert told["n"] == 60
    assert told["srcc_low"] <= told["srcc"] <= told["srcc_high"]
    save_head(tmp_path / "mine.safetensors", head)
    scorer = ProbeScorer(sampled, load_head(tmp_path / "mine.safetensors"))
    batch = scorer.score(sampled.latents)
    values = torch.tensor(batch.values())
    assert torch.corrcoef(torch.stack([values, torch.tensor(sampled.targets)]))[0, 1] > 0.95
    later = MadeUpRuns(count=20, seed=5)
    fresh = torch.tensor(ProbeScorer(later, head).score(later.latents).values())
    assert torch.corrcoef(torch.stack([fresh, torch.tensor(later.targets)]))[0, 1] > 0.6
    assert batch[0].attributes["spread"] > 0
    assert batch[3].attributes["run"] == 2


def test_order_and_batch_mates_change_nothing(sampled, collected):
    head, _ = fit_probe_head(sampled, JUDGE, collected(), "mine")
    scorer = ProbeScorer(sampled, head)
    together = scorer.score(sampled.latents[:6]).values()
    assert scorer.score(sampled.latents[:6].flip(0)).values() == together[::-1]
    assert [scorer.score(sampled.latents[place : place + 1])[0].value for place in range(6)] == together


def test_a_head_fitted_to_a_scorer_claims_no_scale_for_people(sampled, collected):
    head, told = fit_probe_head(sampled, JUDGE, collected(), "mine")
    spec = ProbeScorer(sampled, head).spec
    assert not spec.calibrated
    assert spec.settings["fitted_to"] == told["fitted_to"] == "judge's scores"
    assert spec.scale == (0.0, 100.0)
    rated, _ = fit_probe_head(sampled, Target.ratings(), collected(target=Target.ratings(), name="rated"), "rated")
    assert ProbeScorer(sampled, rated).spec.calibrated_on == "your ratings"


def test_an_open_scale_stays_open_and_its_direction_is_kept(sampled, collected):
    target = Target.scores(ScoreSpec("zero_shot", direction="lower"))
    values = [value / 10 - 9 for value in sampled.targets]
    head, _ = fit_probe_head(sampled, target, collected(target=target, targets=values), "mine")
    spec = ProbeScorer(sampled, head).spec
    assert (spec.scale, spec.direction) == (None, "lower")
    assert spec.centre == pytest.approx(sum(values) / len(values), abs=0.3)


def test_whole_prompts_are_held_out_where_there_are_enough(sampled, collected):
    _, told = fit_probe_head(sampled, JUDGE, collected(), "mine")
    assert "prompts that the head had not seen" in told["held_out"]
    few = MadeUpRuns(prompts=1)
    _, told = fit_probe_head(few, JUDGE, collected(few, name="few"), "few")
    assert "seeds that the head had not seen" in told["held_out"]


def test_missing_runs_and_levels_are_reasons_and_the_others_are_scored(sampled, collected):
    head, _ = fit_probe_head(sampled, JUDGE, collected(), "mine")
    mixed = torch.cat([sampled.latents[:2], torch.zeros(1, 4, 2, 2), sampled.latents[2:3]])
    batch = ProbeScorer(sampled, head).score(mixed)
    assert [score.ok for score in batch] == [True, True, False, True]
    assert "not what any of the probe's 30 samplings gave" in batch[2].reason
    cached = MadeUpRuns(missing=(1,))
    assert all("caching" in score.reason for score in ProbeScorer(cached, head).score(cached.latents[:2]))


def test_features_of_nan_are_a_reason(sampled):
    broken = MadeUpRuns(count=1)
    next(iter(broken._runs._rows.values())).run.features[(0, "cond")][1, 3] = float("nan")
    known = look_up(broken, broken.latents)
    assert isinstance(known.features[0], torch.Tensor)
    assert "NaN" in known.features[1]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("sigmas", {"sigmas": (2.0, 0.4)}),
        ("family", {"family": SimpleNamespace(name="sdxl", taps=TAPS)}),
        ("taps", {"plan": ProbePlan(TAPS[:1], (2.0, 0.5))}),
        ("fingerprint", {"fingerprint": Fingerprint("sd15", tuple(torch.linspace(1, -1, 256).tolist()))}),
    ],
)
def test_what_differs_is_named(sampled, collected, field, change):
    head, _ = fit_probe_head(sampled, JUDGE, collected(), "mine")
    other = MadeUpRuns(count=1, sigmas=change.pop("sigmas", (2.0, 0.5)))
    for name, value in change.items():
        setattr(other, name, value)
    with pytest.raises(MismatchedBackbone, match=field):
        ProbeScorer(other, head)
    if field == "fingerprint":
        assert not ProbeScorer(other, head, override=True).spec.calibrated


def test_a_collection_takes_rows_of_one_kind_only(sampled, tmp_path):
    store = RatedRuns(tmp_path / "mine.sqlite")
    rows, _ = rows_of(sampled, sampled.latents, sampled.targets, "session")
    assert store.add(told_of(sampled, JUDGE), rows[:10]) == 10
    assert store.add(told_of(sampled, JUDGE), rows[5:15]) == 15  # the same image counts once
    with pytest.raises(BadInput, match="target"):
        store.add(told_of(sampled, Target.ratings()), rows)
    with pytest.raises(BadInput, match="sigmas"):
        store.add(told_of(MadeUpRuns(count=1, sigmas=(2.0, 0.4)), JUDGE), rows)
    assert len(store.read().targets) == 15


def test_features_come_back_in_half_precision(sampled, tmp_path):
    store = RatedRuns(tmp_path / "mine.sqlite")
    rows, _ = rows_of(sampled, sampled.latents, sampled.targets, "session")
    store.add(told_of(sampled, JUDGE), rows)
    found = store.read()
    torch.testing.assert_close(found.features, torch.stack([row.features for row in rows]), rtol=1e-3, atol=1e-4)
    assert found.targets.tolist() == [row.target for row in rows]


def test_what_has_no_score_or_no_run_is_left_out(sampled):
    latents = torch.cat([sampled.latents[:3], torch.zeros(1, 4, 2, 2)])
    rows, known = rows_of(sampled, latents, [1.0, None, 3.0, 4.0], "session")
    assert [row.target for row in rows] == [1.0, 3.0]
    assert isinstance(known.features[3], str)
    with pytest.raises(BadInput, match="4 scores"):
        rows_of(sampled, latents, [1.0], "session")


def test_too_few_images_are_refused(sampled, tmp_path):
    store = RatedRuns(tmp_path / "mine.sqlite")
    with pytest.raises(BadInput, match="finished runs"):
        store.read()
    rows, _ = rows_of(sampled, sampled.latents[:6], sampled.targets[:6], "session")
    store.add(told_of(sampled, JUDGE), rows)
    with pytest.raises(BadInput, match="20 finished images"):
        fit_probe_head(sampled, JUDGE, store.read(), "mine")


def test_the_layout_is_that_of_the_features(sampled):
    layout = layout_of(sampled.plan)
    assert layout.size == 2 * sampled.plan.length
    assert [slot.name for slot in layout.slots][:3] == [
        ("mid", 0, "mean", "cond"),
        ("mid", 0, "std", "cond"),
        ("up.0", 0, "mean", "cond"),
    ]
