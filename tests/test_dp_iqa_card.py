"""The shipped DP-IQA head's card and figures belong to the file that ships, and the file to the embedded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.methods.dp_iqa_file import SHIPPED, load_dp_iqa

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "core" / "assets" / "dp_iqa"


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def head():
    return load_dp_iqa(SHIPPED)


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
    assert {row["scorer"] for row in rows} >= {"dp_iqa"}
    for row in rows:
        run = last[row["data"], row["split"], row["scorer"]]
        assert (run["srcc"], run["n"]) == (row["srcc"], row["n"])
        if row["scorer"] == "dp_iqa":
            assert run["settings"]["weights"] == head.digest()


def test_a_teacher_without_gain_taught_nothing_that_ships():
    found = json.loads(read("teacher.json"))
    gain = found["gain"]
    assert found["teachers"] == ["dp_iqa"]
    assert gain["alone"]["n"] >= 100
    assert not gain["pays"], "a teacher that pays should teach the judge that ships: say so in both cards"


def test_the_file_is_small_ours_and_tells_how_it_was_made(head):
    assert SHIPPED.stat().st_size < 60_000
    assert not head.academic
    assert head.meta.validation["n"] >= 200
    training, card = head.meta.settings["training"], read("README.md")
    for told in ("steps", "limit", "batch", "rate", "decay", "drop", "share"):
        assert f"--{told} {training[told]:g}" in card
