"""`demo`: ladders from sample pictures that need no download, the table, the sheet, the count of falling steps."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest
import torch
from latent_critic.core.cli import ladders
from latent_critic.core.cli.ladders import PICTURES, Step, count_falls
from latent_critic.core.data.distortions import distort
from latent_critic.core.errors import MissingDependency
from latent_critic.core.images import load_image
from PIL import Image
from skimage import data


@pytest.fixture
def two_pictures(monkeypatch):
    monkeypatch.setattr(ladders.write_ladders, "__defaults__", (("chelsea", "coffee"), 0))


def test_demo_writes_what_it_promises(cli, scorer, tmp_path, two_pictures):
    out = tmp_path / "demo"
    code, text, _ = cli("demo", "--out", out, "--kinds", "darken", "jpeg")
    assert code == 0
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == ["path", "picture", "distortion", "severity", "score"]
    assert len(rows) == 2 * (1 + 2 * 5)
    assert [row["severity"] for row in rows[:7]] == ["0", "1", "2", "3", "4", "5", "1"]
    assert {row["distortion"] for row in rows if row["severity"] == "0"} == {"none"}
    for row in rows:
        # What the table says is what scoring the file says.
        assert float(row["score"]) == pytest.approx(100 * float(load_image(row["path"]).mean()), abs=1e-4)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 6 * 200
    assert "fell in" in text
    assert str(out / "contact_sheet.png") in text
    assert "latent-critic rank" in text


def test_damage_in_the_files_is_the_damage_named(cli, scorer, tmp_path, two_pictures):
    cli("demo", "--out", tmp_path, "--kinds", "darken", "--seed", 3)
    clean = torch.from_numpy(data.coffee().copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(load_image(tmp_path / "pictures" / "coffee.png"), clean)
    damaged = load_image(tmp_path / "pictures" / "coffee_darken_3.png")
    assert torch.allclose(damaged, distort(clean, "darken", 3, 3), atol=0.51 / 255)


def test_darkening_lowers_the_brightness_in_every_visible_step(cli, scorer, tmp_path, two_pictures):
    _, text, _ = cli("demo", "--out", tmp_path, "--kinds", "darken")
    fell, _, visible = next(line for line in text.splitlines() if "fell in" in line).split()[4:7]
    assert fell == visible
    assert int(visible) >= 6


def test_the_samples_lie_in_the_wheel():
    folder = Path(data.__file__).parent
    for name in PICTURES:
        assert list(folder.glob(f"{name}.*")), name
        assert getattr(data, name)().ndim == 3


def test_only_visible_steps_are_counted():
    def ladder(*rows):
        return [Step(Path(str(i)), "a", "jpeg" if i else "none", i, ssim) for i, ssim in enumerate(rows)]

    assert count_falls(ladder(1.0, 0.99, 0.9, 0.8), [50, 60, 40, 45]) == (1, 2)
    assert count_falls(ladder(1.0, 0.9), [50, None]) == (0, 0)
    assert count_falls(ladder(1.0, 0.9), [50, 50]) == (0, 1)


def test_an_unknown_kind_is_refused(cli, scorer, tmp_path):
    code, _, err = cli("demo", "--out", tmp_path, "--kinds", "rust")
    assert code == 2
    assert "a kind of damage" in err


def test_without_scikit_image_it_says_what_to_install(cli, scorer, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.data", None)
    code, _, err = cli("demo", "--out", tmp_path)
    assert code == 2
    assert "latent-critic[demo]" in err
    with pytest.raises(MissingDependency):
        ladders.write_ladders(tmp_path, ["jpeg"])


def test_a_kind_named_twice_counts_once_and_an_unknown_one_writes_nothing(cli, scorer, tmp_path, two_pictures):
    assert cli("demo", "--out", tmp_path / "d", "--kinds", "jpeg", "jpeg")[0] == 0
    assert cli("demo", "--out", tmp_path / "e", "--kinds", "jpeg", "rust")[0] == 2
    assert not (tmp_path / "e").exists()


def test_an_out_that_is_a_file_is_refused(cli, scorer, tmp_path):
    (tmp_path / "f").write_text("mine")
    code, _, err = cli("demo", "--out", tmp_path / "f")
    assert code == 2
    assert "Name another folder" in err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_folder_whose_name_is_no_text(cli, scorer, tmp_path, two_pictures):
    out = tmp_path / os.fsdecode(b"d\xff")
    assert cli("demo", "--out", out, "--kinds", "jpeg")[0] == 0
    assert (out / "scores.csv").exists()
