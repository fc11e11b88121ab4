"""The shipped GenzIQA head's card and figures belong to the file that ships, and the file to the embedded model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from latent_critic.core.methods.genziqa_file import SHIPPED, load_genziqa

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("core", "assets", "genziqa")


def lines(name):
    path = ROOT / FOLDER / name
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def check(script: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "--check"]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_the_check_was_of_the_shipped_head_and_model():
    head, found = load_genziqa(SHIPPED), json.loads("\n".join(lines("check.json")))
    assert found["weights"] == head.digest()
    assert found["backbone"] == head.meta.fingerprint
    assert found["n"] >= 50
    assert {row["levels"] for row in found["levels"]} == {"published (8)", "fast (2)", "fastest (1)"}


def test_other_trainings_stayed_out_for_a_reason():
    """Each was compared with the head that ships, and was not better beyond doubt."""
    digest = load_genziqa(SHIPPED).digest()
    for row in json.loads("\n".join(lines("tried.json"))):
        assert row["other"]["weights"] == digest
        assert row["head"]["weights"] != digest
        assert row["n"] >= 50
        assert row["difference"]["low"] <= 0.0


def test_the_shipped_head_knows_its_models_parts():
    assert {"vae_ends", "text_l", "text_layer", "text_patches"} <= set(load_genziqa(SHIPPED).meta.identity)


def test_a_head_that_rewards_damage_has_no_scale():
    head, found = load_genziqa(SHIPPED), json.loads("\n".join(lines("ladders.json")))
    assert found["weights"] == head.digest()
    assert (head.meta.scale, head.meta.calibrated_on) == (None, None)
    jpeg = found["kinds"]["jpeg"]
    assert jpeg["fell"] < jpeg["visible"] / 2, "say in the card that it rewards heavy JPEG no more"


def test_every_published_figure_is_the_last_run_of_the_shipped_head():
    runs = [json.loads(line) for line in lines("test_runs.jsonl")]
    last = {(run["data"], run["split"], run["scorer"]): run for run in runs}
    rows = json.loads("\n".join(lines("benchmark.json")) or "[]")
    for row in rows:
        run = last[row["data"], row["split"], row["scorer"]]
        assert (run["srcc"], run["n"]) == (row["srcc"], row["n"])
        if row["scorer"] == "genziqa":
            assert run["settings"]["weights"] == load_genziqa(SHIPPED).digest()
    assert bool(rows) == bool(runs)


def test_the_file_is_small_and_tells_how_it_was_made():
    assert SHIPPED.stat().st_size < 60_000
    training = load_genziqa(SHIPPED).meta.settings["training"]
    card = (ROOT / FOLDER / "README.md").read_text(encoding="utf-8")
    for told in (f"--steps {training['steps']}", f"--limit {training['limit']}", f"--batch {training['batch']}"):
        assert told in card


def test_a_card_that_drifted_is_found(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / FOLDER, tmp_path / FOLDER)
    assert check(tmp_path / ".ci" / "cards.py").returncode == 0
    path = tmp_path / FOLDER / "check.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**found, "n": found["n"] + 1}), encoding="utf-8")
    done = check(tmp_path / ".ci" / "cards.py")
    assert done.returncode == 1
    assert "out of date" in done.stdout
