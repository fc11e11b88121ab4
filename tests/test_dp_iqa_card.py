"""The shipped DP-IQA head's card and figures belong to the file that ships, and the file to the embedded model."""

from __future__ import annotations

import pytest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.methods.dp_iqa_file import SHIPPED, load_dp_iqa


@pytest.fixture(scope="module")
def head():
    return load_dp_iqa(SHIPPED)


@pytest.fixture(scope="module")
def folder(shipped):
    return shipped("dp_iqa")


def test_the_card_is_what_its_command_writes(folder):
    folder.check_card()


def test_ladders_are_of_the_shipped_head(folder, head):
    folder.check_ladders(head.digest(), KINDS)


def test_every_published_figure_is_the_last_run_of_the_shipped_head(folder, head):
    others = {row["scorer"] for row in folder.json("benchmark.json")}
    folder.check_runs("benchmark.json", "dp_iqa", head.digest(), frozenset(others))


def test_a_teacher_without_gain_taught_nothing_that_ships(folder):
    found = folder.json("teacher.json")
    gain = found["gain"]
    assert found["teachers"] == ["dp_iqa"]
    assert gain["alone"]["n"] >= 100
    assert not gain["pays"], "a teacher that pays should teach the judge that ships: say so in both cards"


def test_the_file_is_small_ours_and_tells_how_it_was_made(folder, head):
    assert SHIPPED.stat().st_size < 60_000
    assert not head.academic
    assert head.meta.validation["n"] >= 200
    folder.check_command(head.meta.settings["training"], "steps limit batch rate decay drop share")
