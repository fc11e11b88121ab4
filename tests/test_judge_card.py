"""The judge's card tells what its training measured: the ladder of changes, with every sign, and a tuning's log."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from latent_critic.core.methods.judge import Judge
from latent_critic.core.nets.judge import JudgeNetwork
from latent_critic.core.nets.judge_file import save
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("core", "assets", "judge")
FIGURES = {"srcc": 0.851, "srcc_low": 0.84, "srcc_high": 0.86, "plcc": 0.88}
SHARE = {"share": 0.9, "low": 0.8, "high": 0.95, "n": 40}


def gain(difference):
    return {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "n": 2006}


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / FOLDER, tmp_path / FOLDER)
    return tmp_path


def install(copy, **told):
    """A judge's file that says these things of itself."""
    metadata = {"latent_critic_judge": json.dumps(asdict(Judge.load().facts) | told)}
    save_file({"x": np.zeros(3, dtype=np.float32)}, copy / FOLDER / "judge.safetensors", metadata=metadata)


def renewed(copy):
    """The card that cards.py writes there."""
    done = subprocess.run(
        [sys.executable, str(copy / ".ci" / "cards.py")], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return (copy / FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_study_is_told_with_every_sign(copy):
    rows = [{"name": "as shipped", "agreement": FIGURES, "difference": None}]
    rows += [
        {"name": name, "agreement": FIGURES, "difference": gain(value)} for name, value in (("a", 0.02), ("b", -0.03))
    ]
    families = [{"family": "latent", "contents": 9, "none": SHARE, "others": SHARE, "all": SHARE}]
    flat = {"pictures": 30, "shift": -4.25, "worst": -9.5, "weight": -3.0, "srcc_of_naturalness_alone": 0.412}
    agreed = {"agreement": FIGURES}
    larger = {"name": "lite2", "parameters": 4_860_000, "pictures": 800, "unrated": 799, "n": 400, "own": agreed}
    larger |= {"larger": agreed | {"difference": gain(-0.0045)}, "taught": agreed | {"difference": gain(0.0039)}}
    told = {"n": 2006, "pictures": 10000, "rows": rows, "families": families, "flat": flat, "larger": larger}
    (copy / FOLDER / "study.json").write_text(json.dumps(told), encoding="utf-8")
    card = renewed(copy)
    assert "| a | 0.851 (0.840 – 0.860) | 0.880 | +0.0200 (+0.0100 – +0.0300) |" in card
    assert "| b | 0.851 (0.840 – 0.860) | 0.880 | -0.0300 (-0.0400 – -0.0200) |" in card
    assert "| latent | 0.900 (0.800 – 0.950) |" in card
    assert "-4.25 points" in card
    assert "EfficientNet-Lite2 (4.9 M parameters), the same pictures | 0.851 (0.840 – 0.860) | -0.0045" in card
    assert "799 unrated pictures scored by EfficientNet-Lite2 | 0.851 (0.840 – 0.860) | +0.0039" in card
    assert "Not measured yet" not in card.partition("study:begin")[2].partition("study:end")[0]


def test_a_fine_tuned_file_is_told_with_its_log(copy):
    tuned = {"place": "stage5", "steps": 2000, "batch": 16, "gain": gain(0.012)}
    install(copy, rank=64, format=2, settings={"share": 0.2, "split_seed": 0, "tuned": tuned})
    row = {"stage": "judge", "step": 250, "srcc": 0.85, "plcc": 0.88, "n": 400}
    families = {"latent": {"ladders": 9, "fell": 20, "n": 27}}
    log = [row | {"ladders": families}, row | {"step": 500, "ladders": {}}, {"stage": "judge", "loss": 1.0}]
    (copy / FOLDER / "training.jsonl").write_text("\n".join(map(json.dumps, log)), encoding="utf-8")
    card = renewed(copy)
    assert "behind a squeeze to 64; trained with the trunk from stage5 on, 2,000 steps of 16 pictures" in card
    assert "SRCC +0.0120 (+0.0020 – +0.0220), n = 2,006" in card
    assert "| 250 | 0.850 | 0.880 | latent 20 of 27 |" in card
    assert "| 500 | 0.850 | 0.880 | – |" in card


def test_ladders_that_taught_the_head_are_told_with_what_they_cost(copy):
    brought = {"agreement": gain(-0.0003), "plain": SHARE | {"share": 0.857}, "taught": SHARE | {"share": 0.953}}
    damage = {"order": 1.0, "tasks": 0.0, "rank": 0.5, "average": 0.0, "gain": brought}
    install(copy, settings={"members": 2, "width": 192, "epochs": 6, "damage": damage})
    card = renewed(copy)
    assert "6 epochs; weights beside the ratings: ladders of damage 1, ranking 0.5 |" in card
    assert "the score falls in 95.3% (80.0% – 95.0%) of 40 steps" in card
    assert "| what ladders of damage, ranking brought |" in card
    assert "in 85.7% without; SRCC of the validation -0.0003" in card
    install(copy, settings={"members": 4, "width": 192, "epochs": 6, "damage": damage | {"norm": 2.0, "smooth": 0.5}})
    card = renewed(copy)
    assert "weights beside the ratings' own of 0.5: ladders of damage 1, ranking 0.5, norm-in-norm 2 |" in card


def test_what_did_not_ship_held_out_damage_and_the_control_are_told(copy):
    falls = {"step": 200, "ladders": {"latent": {"ladders": 9, "fell": 20, "n": 27}}}
    tuned = {"place": "stage5", "steps": 600, "batch": 16, "rate": 1e-4, "gain": gain(-0.02), "best": falls}
    log = [{"step": 200, "srcc": 0.812, "plcc": 0.83, "n": 250} | falls]
    tried = [{"validation": FIGURES, "tuned": tuned, "log": log}]
    (copy / FOLDER / "tried.json").write_text(json.dumps(tried), encoding="utf-8")
    shares = {"share": 0.96, "share_low": 0.95, "share_high": 0.98, "content_spread": 0.4}
    kinds = {"smear": {"falls": 9, "n": 10}, "scan_jitter": {"falls": 1, "n": 10}}
    row = {"data": "ladders", "scorer": "judge", "n": 195, **FIGURES, **shares, "kinds": kinds}
    (copy / FOLDER / "held_out.json").write_text(json.dumps([row]), encoding="utf-8")
    models = {"dall-e3": {"srcc": 0.26, "n": 80}, "sdxl": {"srcc": -0.07, "n": 80}}
    row = {"data": "ai-human-images", "scorer": "judge", "n": 240, **FIGURES, "kinds": models}
    (copy / FOLDER / "control.json").write_text(json.dumps([row]), encoding="utf-8")
    card = renewed(copy)
    assert "| from stage5 on, 600 steps of 16, rate 0.0001; the best validation's weights, of step 200 |" in card
    assert "-0.0200 (-0.0300 – -0.0100), n = 2,006 | latent 20 of 27 |" in card
    assert "| 200 | 0.812 | 0.830 | latent 20 of 27 |" in card
    assert "(tried.png)" in card
    assert "96.0 % (95.0 – 98.0)" in card
    assert "smear 9 of 10, scan jitter 1 of 10. It misses this project's bar of 97%." in card
    assert "spread by 0.40" in card
    assert "Without scan jitter the score fell in 90.0% of 10 steps." in card
    assert "240 generated pictures of people" in card
    assert "dall-e3 +0.26 (n = 80), sdxl -0.07 (n = 80)" in card
    assert "the interval does not hold 0." in card


def test_a_fine_tuning_is_noted_once_with_its_log(copy):
    tuned = {"place": "stage5", "steps": 600, "batch": 16, "rate": 1e-4, "gain": gain(-0.02)}
    file, out, run = copy / FOLDER / "judge.safetensors", copy / "noted.json", copy / "run"
    whole = JudgeNetwork(8)
    save(file, whole, replace(Judge.load().facts, settings={"tuned": tuned}, width=8, rank=0))
    run.mkdir()
    row = {"stage": "judge", "step": 200, "srcc": 0.81, "plcc": 0.83, "n": 250}
    (run / "log.jsonl").write_text(json.dumps({"loss": 1.0}) + "\n" + json.dumps(row))
    command = [sys.executable, str(copy / ".ci" / "judge_tried.py"), str(file), "--out", str(out)]
    for more in ([], ["--run", str(run)], ["--run", str(run)]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        assert out.with_suffix(".png").exists() == bool(more)
    noted = json.loads(out.read_text(encoding="utf-8"))
    assert [(one["tuned"]["gain"], one["log"]) for one in noted] == [(gain(-0.02), [row])]
    shutil.copy(ROOT / FOLDER / "judge.safetensors", file)
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    assert "a frozen trunk" in done.stderr
