"""The shipped DiffV2IQA head's card and figures belong to the file that ships, and the head to what ships beside it."""

from __future__ import annotations

import pytest
import torch
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.data.held_out import HELD_OUT_KINDS
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.diff_v2_iqa_make import SHIPPED, make_diff_v2
from latent_critic.core.train.diff_v2_study import UNRESTORED, VCG, VDA, WHOLE


@pytest.fixture(scope="module")
def head():
    return load_diff_v2(SHIPPED)


@pytest.fixture(scope="module")
def folder(shipped):
    return shipped("diff_v2_iqa")


def test_the_card_is_what_its_command_writes(folder):
    folder.check_card()


def test_ladders_are_of_the_shipped_head(folder, head):
    folder.check_ladders(head.digest(), KINDS)


def test_every_published_figure_is_the_last_run_of_the_shipped_head(folder, head):
    folder.check_runs("benchmark.json", "diff_v2_iqa", head.digest())
    assert all(row["denoiser_calls"] in (None, 4.0) for row in folder.json("benchmark.json"))  # never none at all


def test_held_out_ladders_are_of_the_shipped_head(folder, head):
    folder.check_runs("held_out.json", "diff_v2_iqa", head.digest(), frozenset({"judge"}))
    for row in folder.json("held_out.json"):
        assert set(row["kinds"]) <= set(HELD_OUT_KINDS)
        assert row["share_low"] <= row["share"] <= row["share_high"]


def test_the_study_is_of_the_shipped_heads_training(folder, head):
    """All heads of it were trained alike, on the shipped one's pictures; the shipped one had more steps."""
    found, training = folder.json("study.json"), head.meta.settings["training"]
    rows = {row["head"]: row for row in found["heads"]}
    assert list(rows) == [WHOLE, UNRESTORED, VCG, VDA]
    assert (found["data"], found["seed"]) == (head.meta.training_set, training["seed"])
    assert {row["agreement"]["n"] for row in rows.values()} == {head.meta.validation["n"]}
    assert f"--steps {found['steps']}" in folder.read("README.md")


def test_it_scores_with_the_restorer_and_the_judge_that_ship(head):
    """A judge of another trunk, or another restorer, makes this head one for something else: train it again."""
    judge = make_diff_v2(head)
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    (score,) = judge.score([image]).scores
    assert score.reason is None
    assert 0.0 <= score.value <= 100.0
    assert judge.spec.scale == (0.0, 100.0)


def test_the_command_in_the_card_is_the_one_that_made_it(folder, head):
    folder.check_command(head.meta.settings["training"], "steps limit batch decay drop share average")
    assert SHIPPED.stat().st_size < 150_000
