import csv
import errno
import io
import json
import os

import pytest
from PIL import Image

pytestmark = pytest.mark.host


def test_scores_come_out_in_order_with_plain_numbers_beside_them(run_node, pictures, scorer):
    run = run_node(
        "LatentCriticScoreImages",
        images=[pictures([0.2, 0.8, None])],
        scorer=[scorer()],
        names=["a.png", "b.png", "c.png"],
        seeds=[5],
    )
    assert run.success, run.error
    (batch,) = run.kept["scores"]
    assert batch.values() == [pytest.approx(20, abs=1e-3), pytest.approx(80, abs=1e-3), None]
    assert run.kept["best_score"] == [batch[1].value]
    assert run.kept["mean_score"] == [pytest.approx(50, abs=1e-3)]
    assert run.kept["best_index"] == [1]
    assert run.kept["scored_count"] == [2]
    assert run.kept["all_scored"] == [False]
    assert [row["name"] for row in run.ui["scores"]] == ["b.png", "a.png", "c.png"]
    assert {row["seed"] for row in run.ui["scores"]} == {5}
    json.dumps(run.ui)  # what /history sends


def test_prompts_reach_the_scorer_one_per_image(run_node, pictures, scorer):
    judge = scorer()
    run_node("LatentCriticScoreImages", images=[pictures([0.2, 0.8])], scorer=[judge], prompts=["all"])
    run_node("LatentCriticScoreImages", images=[pictures([0.3, 0.8])], scorer=[judge], prompts=["a", "b"])
    run_node("LatentCriticScoreImages", images=[pictures([0.4, 0.8])], scorer=[judge])
    assert [prompts for _, prompts in judge.calls] == [["all", "all"], ["a", "b"], None]


@pytest.mark.parametrize("field", ["prompts", "names", "seeds"])
def test_lists_of_the_wrong_length_are_refused_before_anything_is_scored(run_node, pictures, scorer, field):
    judge = scorer()
    run = run_node("LatentCriticScoreImages", images=[pictures([0.2, 0.8, 0.5])], scorer=[judge], **{field: [1, 2]})
    assert f"Expected 3 {field}" in run.error
    assert judge.calls == []


def test_when_no_image_has_a_score_the_numbers_are_blocked_and_the_scores_go_on(run_node, pictures, scorer):
    run = run_node("LatentCriticScoreImages", images=[pictures([None])], scorer=[scorer()])
    assert run.success, run.error
    assert "best_score" not in run.kept
    assert "NaN" in run.blocked["best_score"]
    assert run.kept["scored_count"] == [0]
    assert len(run.kept["scores"][0]) == 1


def test_the_report_has_three_forms(run_node, pictures, scorer):
    batch = scorer().score(list(pictures([0.2, None, 0.8]).movedim(-1, 1)))
    reports = {}
    for form in ("text", "csv", "jsonl"):
        run = run_node("LatentCriticScoreReport", {"form": form}, scores=[batch])
        assert run.success, run.error
        (reports[form],) = run.kept["report"]
        assert run.ui["text"] == [reports[form]]
    assert run.kept["best_score"] == [pytest.approx(80, abs=1e-3)]
    assert run.kept["worst_score"] == [pytest.approx(20, abs=1e-3)]
    assert run.kept["count"] == [3]
    assert "calibrated on photographs" in reports["text"]
    assert len(list(csv.DictReader(io.StringIO(reports["csv"])))) == 3
    assert len([json.loads(line) for line in reports["jsonl"].splitlines()]) == 3


def test_scores_of_different_scorers_are_not_joined(run_node, pictures, scorer):
    images = list(pictures([0.2]).movedim(-1, 1))
    batches = [scorer().score(images), scorer(name="other").score(images)]
    run = run_node("LatentCriticScoreReport", {"form": "text"}, scores=batches)
    assert "scores of one scorer" in run.error


def test_scores_of_lists_are_joined(run_node, pictures, scorer):
    images = list(pictures([0.2, 0.8]).movedim(-1, 1))
    batch = scorer().score(images)
    run = run_node("LatentCriticScoreReport", {"form": "text"}, scores=[batch, batch])
    assert run.kept["count"] == [4]


@pytest.mark.parametrize("seed", ["x", None, float("inf")])
def test_a_seed_that_is_no_number_is_refused_before_anything_is_scored(run_node, pictures, scorer, seed):
    judge = scorer()
    run = run_node("LatentCriticScoreImages", images=[pictures([0.2])], scorer=[judge], seeds=[seed])
    assert f"Expected whole numbers as seeds; got {seed!r}" in run.error
    assert judge.calls == []


def test_a_full_disk_costs_the_thumbnails_and_no_output(run_node, pictures, scorer, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    run = run_node("LatentCriticScoreImages", images=[pictures([0.2, 0.8])], scorer=[scorer()])
    monkeypatch.undo()
    assert run.success, run.error
    assert run.ui["images"] == []
    assert run.kept["scored_count"] == [2]
    assert "No space left on device" in caplog.text
