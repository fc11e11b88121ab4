"""The judge's card and figures belong to the weights that ship: none is typed, none is left from another file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.methods.judge import SHIPPED, Judge
from latent_critic.core.nets.judge_file import digest
from latent_critic.core.nets.view_policy import POLICIES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("core", "assets", "judge")


def read_json(name):
    return json.loads((ROOT / FOLDER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs():
    """The log of test runs, oldest first."""
    lines = (ROOT / FOLDER / "test_runs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_last_test_run_was_of_the_shipped_weights(runs):
    assert runs[-1]["settings"]["weights"] == digest(SHIPPED)


@pytest.mark.parametrize("file", ["benchmark.json", "held_out.json", "control.json"])
def test_every_published_figure_is_the_last_run_on_its_set(runs, file):
    rows = read_json(file)
    assert rows
    last = {(run["data"], run["split"], run["scorer"]): run for run in runs}
    for row in rows:
        run = last[row["data"], row["split"], row["scorer"]]
        assert {name: run[name] for name in row} == row
        assert run["settings"]["weights"] == digest(SHIPPED)


def test_the_ladders_were_measured_on_the_shipped_weights():
    found = read_json("ladders.json")
    assert found["weights"] == digest(SHIPPED)
    assert set(found["kinds"]) == set(KINDS)


def test_the_views_were_measured_on_the_shipped_backbone_and_policies():
    found = read_json("views.json")
    assert found["weights"] == digest(SHIPPED)
    told = Judge.load().facts.settings.get("damage") or {}
    assert found["damage"] == ({name: value for name, value in told.items() if name != "gain"} or None)
    measured = {row["most"]: row["agreement"] for row in found["rows"]}
    assert set(POLICIES.values()) <= set(measured)
    validation = Judge.load().facts.validation
    assert measured[POLICIES["full"]]["srcc"] == pytest.approx(validation["srcc"], abs=1e-3)


def check(script: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "--check"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_the_card_is_up_to_date():
    done = check(ROOT / ".ci" / "cards.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("measured", "now", "then"),
    [
        ("benchmark.json", "2000", "1999"),
        ("ladders.json", '"visible": 20', '"visible": 21'),
        ("views.json", "2006", "7"),
    ],
)
def test_a_card_that_drifted_is_found(tmp_path, measured, now, then):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / FOLDER, tmp_path / FOLDER)
    assert check(tmp_path / ".ci" / "cards.py").returncode == 0
    path = tmp_path / FOLDER / measured
    before = path.read_text(encoding="utf-8")
    assert now in before
    path.write_text(before.replace(now, then), encoding="utf-8")
    done = check(tmp_path / ".ci" / "cards.py")
    assert done.returncode == 1
    assert "out of date" in done.stdout
