"""The shipped LGDM head's card and figures belong to the file that ships, and the file to the embedded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.heads.head_file import head_digest, load_head
from latent_critic.core.methods.lgdm import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "core" / "assets" / "lgdm"


def read(name):
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def head():
    return load_head(SHIPPED)


def test_the_card_is_what_its_command_writes():
    script = ROOT / ".ci" / "cards.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert f"{FOLDER / 'README.md'} is up to date" in done.stdout, done.stdout + done.stderr


def test_ladders_are_of_the_shipped_head(head):
    found = json.loads(read("ladders.json"))
    assert found["weights"] == head_digest(head)
    assert set(found["kinds"]) == set(KINDS)


def test_every_published_figure_is_the_last_run_of_the_shipped_head(head):
    last = {}
    for line in read("test_runs.jsonl").splitlines():
        run = json.loads(line)
        last[run["data"], run["split"], run["scorer"]] = run
    rows = json.loads(read("benchmark.json"))
    assert {row["scorer"] for row in rows} == {"lgdm"}
    for row in rows:
        run = last[row["data"], row["split"], row["scorer"]]
        assert (run["srcc"], run["n"]) == (row["srcc"], row["n"])
        assert run["settings"]["head"] == head_digest(head)


def test_the_card_tells_how_it_was_made(head):
    card = read("README.md")
    assert f"--limit {head.meta.pictures}" in card or head.meta.pictures == 10_000
    assert head.meta.family == "critic_ldm"
    assert head.meta.validation["n"] == head.meta.pictures
