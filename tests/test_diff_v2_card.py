"""The shipped DiffV2IQA head's card and figures belong to the file that ships, and the head to what ships beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.diff_v2_iqa_make import SHIPPED, make_diff_v2

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "core" / "assets" / "diff_v2_iqa"


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def head():
    return load_diff_v2(SHIPPED)


def test_the_card_is_what_its_command_writes():
    script = ROOT / ".ci" / "cards.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert f"{FOLDER / 'README.md'} is up to date" in done.stdout, done.stdout + done.stderr


def test_ladders_are_of_the_shipped_head(head):
    found = json.loads(read("ladders.json"))
    assert found["weights"] == head.digest()
    assert set(found["kinds"]) == set(KINDS)


def test_every_published_figure_is_the_last_run_of_the_shipped_head(head):
    runs = [json.loads(line) for line in read("test_runs.jsonl").splitlines()]
    last = {(run["data"], run["split"], run["scorer"]): run for run in runs}
    rows = json.loads(read("benchmark.json"))
    assert {row["scorer"] for row in rows} == {"diff_v2_iqa"}
    for row in rows:
        run = last[row["data"], row["split"], row["scorer"]]
        assert (run["srcc"], run["n"]) == (row["srcc"], row["n"])
        assert run["settings"]["weights"] == head.digest()


def test_it_scores_with_the_restorer_and_the_judge_that_ship(head):
    """A new judge or restorer makes this head one for something else: train it again."""
    judge = make_diff_v2(head)
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    (score,) = judge.score([image]).scores
    assert score.reason is None
    assert 0.0 <= score.value <= 100.0
    assert judge.spec.scale == (0.0, 100.0)


def test_the_command_in_the_card_is_the_one_that_made_it(head):
    training, card = head.meta.settings["training"], read("README.md")
    for told in ("steps", "limit", "batch", "decay", "drop", "share", "average"):
        assert f"--{told} {training[told]:g}" in card
    assert SHIPPED.stat().st_size < 150_000
