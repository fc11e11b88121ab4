"""`benchmark`: the forms it writes, its log, its bad input. The measures have tests of their own."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from latent_critic.core.cli import scorers
from latent_critic.core.cli.benchmark_output import COLUMNS
from latent_critic.core.nets.critic_ldm import SHIPPED as EMBEDDED
from PIL import Image

from .conftest import Brightness

CONTRACT = {"data", "split", "scorer", "backbone", "n", "srcc", "srcc_low", "srcc_high", "plcc", "krcc", "rmse"}


@pytest.fixture
def rated(scorer, greys, tmp_path, monkeypatch):
    """A list of rated pictures whose ratings are their brightness, but for one pair; runs in tmp_path."""
    monkeypatch.setattr(scorers, "load_scorer", lambda *_, **__: scorer)
    monkeypatch.chdir(tmp_path)
    paths = greys(10, 20, 30, 40, 50, 60, 70, 80)
    ratings = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 4.0]
    file = tmp_path / "pics" / "ratings.csv"
    file.write_text("\n".join(f"{path.name},{mos}" for path, mos in zip(paths, ratings, strict=True)))
    return "--data", "csv", "--root", file, "--scale", 1, 5


def test_json_is_the_contract_and_runs_are_logged(cli, rated, tmp_path):
    code, out, err = cli("benchmark", *rated, "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert set(row) >= CONTRACT
    assert (row["data"], row["split"], row["scorer"], row["n"]) == ("ratings", "all", "judge", 8)
    # One adjacent pair of eight is swapped: 1 - 6 * 2 / (8 * 63), and 2 * 1 of 28 pairs.
    assert row["srcc"] == pytest.approx(1 - 12 / 504)
    assert row["krcc"] == pytest.approx(1 - 2 / 28)
    assert row["srcc_low"] <= row["srcc"] <= row["srcc_high"]
    assert "logged" in err
    assert json.loads((tmp_path / "runs" / "benchmark.jsonl").read_text())["srcc"] == row["srcc"]


def test_a_limited_part_says_so_wherever_it_is_told(cli, rated, tmp_path):
    code, out, _ = cli("benchmark", *rated, "--json", "--limit", 5, "--seed", 3)
    assert code == 0
    (row,) = json.loads(out)
    assert (row["data"], row["n"]) == ("ratings (5 of 8, seed 3)", 5)
    assert json.loads((tmp_path / "runs" / "benchmark.jsonl").read_text())["data"] == row["data"]
    _, again, _ = cli("benchmark", *rated, "--json", "--limit", 5, "--seed", 3)
    assert json.loads(again)[0]["srcc"] == row["srcc"]
    _, whole, _ = cli("benchmark", *rated, "--json", "--limit", 99)
    assert json.loads(whole)[0]["data"] == "ratings"
    code, _, err = cli("benchmark", *rated, "--limit", 2)
    assert code == 2
    assert "3 pictures or more" in err


def test_every_form_has_the_same_figures(cli, rated, tmp_path):
    targets = {form: tmp_path / f"b.{form}" for form in ("json", "csv", "markdown")}
    code, out, _ = cli("benchmark", *rated, *(part for form, path in targets.items() for part in (f"--{form}", path)))
    assert (code, out) == (0, "")
    (row,) = json.loads(targets["json"].read_text())
    (cells,) = csv.DictReader(targets["csv"].read_text().splitlines())
    assert float(cells["srcc"]) == row["srcc"]
    assert f"{row['srcc']:.3f} ({row['srcc_low']:.3f} to {row['srcc_high']:.3f})" in targets["markdown"].read_text()
    _, text, _ = cli("benchmark", *rated)
    assert f"{row['srcc']:.4f}" in text


def test_pictures_without_a_score_are_named_and_make_code_one(cli, rated, scorer, monkeypatch):
    real = scorer.score

    def score(images, *rest, **options):
        images = list(images)
        images[0] = images[0] * float("nan")
        return real(images, *rest, **options)

    monkeypatch.setattr(scorer, "score", score)
    code, out, err = cli("benchmark", *rated, "--json")
    assert code == 1
    assert json.loads(out)[0]["n"] == 7
    assert "1 pictures got no score" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nosuch", "--root", "."], "a data set out of"),
        (["--data", "biq2021", "--root", "."], "as its authors publish it"),
        (["--data", "mmp2k", "--root", "."], "as its authors publish it"),
        (["--data", "csv", "--root", "gone.csv"], "list of ratings"),
        (["--data", "csv", "--root", "x", "--batch", "0"], "--batch"),
        (["--data", "csv", "--root", "x", "--json", "-", "--csv", "-"], "different output"),
        (["--data", "csv", "--root", "x", "--log", "."], "a file name for the output"),
        (["--data", "csv", "--data", "ladders", "--root", "x"], "one --root for each --data"),
        (["--data", "csv", "--root", "x", "--draws", "1"], "--draws 0, or at least 2"),
        (["--data", "csv", "--root", "x", "--checkpoint", "c"], "--comfyui with --checkpoint"),
        (["--data", "csv", "--root", "x", "--comfyui", "."], "a ComfyUI folder"),
        (["--data", "ladders", "--root", "nowhere"], "a folder of pictures for ladders"),
    ],
)
def test_bad_input(cli, rated, arguments, words):
    code, out, err = cli("benchmark", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_part_that_is_not_there(cli, rated):
    code, _, err = cli("benchmark", *rated, "--split", "train")
    assert code == 2
    assert "a part of ratings" in err


def test_an_unreadable_picture_is_missing(cli, rated, scorer):
    (rated[3].parent / "p0.png").write_bytes(b"?")
    code, out, err = cli("benchmark", *rated, "--json")
    assert code == 1
    assert json.loads(out)[0]["missing"] == 1
    assert "1 pictures got no score" in err


def test_several_scorers_and_sets_in_one_run(cli, rated, scorer, tmp_path):
    """The stand-in answers to every name, so it is compared with itself."""
    targets = [part for form in ("json", "csv", "markdown") for part in (f"--{form}", tmp_path / f"b.{form}")]
    code, _, _ = cli("benchmark", *rated, *rated, "--scorer", "judge", "--scorer", "judge", *targets)
    assert code == 0
    rows = json.loads((tmp_path / "b.json").read_text())
    assert len(rows) == 4
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS), "the contract's columns come first"
    assert [row["versus"] for row in rows] == [None, "judge", None, "judge"]
    assert rows[1]["difference"] == 0.0
    cells = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [float(cell["plcc_fitted"]) for cell in cells] == [row["plcc_fitted"] for row in rows]
    assert "p (Holm): adjusted for all comparisons" in (tmp_path / "b.markdown").read_text()


def test_a_run_that_was_stopped_goes_on(cli, rated, scorer, monkeypatch, tmp_path):
    real = scorer.score

    def killed(images, *rest, **options):
        if scorer.seen >= 4:
            raise KeyboardInterrupt
        return real(images, *rest, **options)

    monkeypatch.setattr(scorer, "score", killed)
    assert cli("benchmark", *rated, "--resume", "kept", "--batch", "2")[0] == 130
    (journal,) = (tmp_path / "kept").iterdir()
    assert len(journal.read_text().splitlines()) == 5, "a heading, and four scores"
    with journal.open("a") as handle:
        handle.write('{"path": "torn')
    monkeypatch.setattr(scorer, "score", real)
    before = scorer.seen
    code, out, _ = cli("benchmark", *rated, "--resume", "kept", "--json")
    assert code == 0
    assert scorer.seen - before == 4
    assert json.loads(out)[0]["srcc"] == json.loads(cli("benchmark", *rated, "--json")[1])[0]["srcc"]


def test_other_weights_never_take_these_scores(cli, rated, scorer, tmp_path):
    cli("benchmark", *rated, "--resume", "kept")
    scorer.spec = replace(scorer.spec, settings={"seed": 2})
    before = scorer.seen
    cli("benchmark", *rated, "--resume", "kept")
    assert scorer.seen - before == 8
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_scorer_without_a_head_for_this_model_is_an_error(cli, rated):
    code, _, err = cli("benchmark", *rated, "--scorer", "genziqa", "--model", EMBEDDED)
    assert code == 2
    assert "it needs a head for this model" in err


def test_ladders_as_a_set(cli, scorer, greys, tmp_path, monkeypatch):
    monkeypatch.setattr(scorers, "load_scorer", lambda *_: scorer)
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "good" / "a.png")
    arguments = ("--data", "ladders", "--root", tmp_path / "good", "--resamples", 20, "--resume", "kept")
    code, out, err = cli("benchmark", *arguments, "--json", "--markdown", tmp_path / "b.md")
    assert code == 0
    (row,) = json.loads(out)
    assert set(row) >= CONTRACT
    assert (row["data"], row["plcc"], row["missing"]) == ("ladders", None, 0)
    assert row["share"] == row["falls"] / row["n"]
    assert "held-out kind" in (tmp_path / "b.md").read_text()
    assert "logged" in err
    before = scorer.seen
    assert json.loads(cli("benchmark", *arguments, "--json")[1])[0]["share"] == row["share"]
    assert scorer.seen == before, "every rung was in the journal"


def test_fast_policy_reaches_the_judge(cli, greys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(scorers, "load_scorer", lambda *given: seen.append(given) or Brightness())
    paths = greys(10, 50, 90)
    file = tmp_path / "pics" / "r.csv"
    file.write_text("\n".join(f"{path.name},{place}" for place, path in enumerate(paths)))
    assert cli("benchmark", "--data", "csv", "--root", file, "--policy", "fast")[0] == 0
    assert seen == [("judge", "auto", None, "fast")]
