"""The shipped LGDM head's card and figures belong to the file that ships, and the file to the embedded model."""

from __future__ import annotations

import pytest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.heads.head_file import head_digest, load_head
from latent_critic.core.methods.lgdm import SHIPPED


@pytest.fixture(scope="module")
def head():
    return load_head(SHIPPED)


@pytest.fixture(scope="module")
def folder(shipped):
    return shipped("lgdm")


def test_the_card_is_what_its_command_writes(folder):
    folder.check_card()


def test_ladders_are_of_the_shipped_head(folder, head):
    folder.check_ladders(head_digest(head), KINDS)


def test_every_published_figure_is_the_last_run_of_the_shipped_head(folder, head):
    folder.check_runs("benchmark.json", "lgdm", head_digest(head))


def test_the_card_tells_how_it_was_made(folder, head):
    assert f"--limit {head.meta.pictures} " in folder.read("README.md")
    assert head.meta.family == "critic_ldm"
    assert head.meta.validation["n"] == head.meta.pictures
