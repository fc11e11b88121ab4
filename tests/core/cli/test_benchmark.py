"""`benchmark`: the forms it writes, its log, its bad input. The measures have tests of their own."""

from __future__ import annotations

import csv
import json

import pytest
from latent_critic.core.cli import scorers

CONTRACT = {"data", "split", "scorer", "backbone", "n", "srcc", "srcc_low", "srcc_high", "plcc", "krcc", "rmse"}


@pytest.fixture
def rated(scorer, greys, tmp_path, monkeypatch):
    """A list of rated pictures whose ratings are their brightness, but for one pair; runs in tmp_path."""
    monkeypatch.setattr(scorers, "load_scorer", lambda *_: scorer)
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
