"""The installed command with the judge that ships: what a newcomer runs first."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from latent_critic.core.cli.ladders import PICTURES
from PIL import Image, ImageFilter
from skimage import data

INSTALLED = Path(sys.executable).with_name("latent-critic")
DECIMALS = 0.01  # 1e-4 of the scale


def run(cwd, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(part) for part in (INSTALLED, *arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Sample pictures, each as it is and badly blurred."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in PICTURES:
        picture = Image.fromarray(getattr(data, name)())
        picture.save(folder / f"{name}.png")
        picture.filter(ImageFilter.GaussianBlur(6)).save(folder / f"{name}_blurred.png")
    return folder


def test_rank_puts_every_sharp_picture_above_its_blurred_copy(pictures, tmp_path):
    done = run(tmp_path, "rank", pictures, "--json", "--contact-sheet", "sheet.png")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    order = [Path(row["path"]).stem for row in rows]
    assert len(order) == 2 * len(PICTURES)
    for name in PICTURES:
        assert order.index(name) < order.index(f"{name}_blurred")
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {(row["scorer"], tuple(row["scale"]), row["direction"]) for row in rows} == {("judge", (0, 100), "higher")}
    assert all(0 <= row["score"] <= 100 for row in rows)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500


def test_scores_do_not_depend_on_batches_or_a_resumed_run(pictures, tmp_path):
    one = json.loads(run(tmp_path, "score", pictures, "--batch", 1, "--json").stdout)
    for arguments in (["--batch", 5, "--resume"], ["--resume"]):
        again = json.loads(run(tmp_path, "score", pictures, "--json", "-", *arguments).stdout)
        assert [row["path"] for row in again] == [row["path"] for row in one]
        assert all(abs(a["score"] - b["score"]) <= DECIMALS for a, b in zip(one, again, strict=True))


def test_models_shows_the_shipped_judge_with_its_card_and_figures(tmp_path):
    found = json.loads(run(tmp_path, "models", "--json").stdout)
    (judge,) = (asset for asset in found["assets"] if asset["name"].startswith("judge/"))
    assert judge["bytes"] == Path(judge["path"]).stat().st_size
    assert Path(judge["card"]).is_file()
    assert "srcc" in json.dumps(judge["metadata"])


def test_a_small_demo(tmp_path):
    done = run(tmp_path, "demo", "--kinds", "gaussian_blur")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "latent-critic-demo" / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(PICTURES) * 6
    score = {(row["picture"], row["severity"]): float(row["score"]) for row in rows}
    for name in PICTURES:
        assert score[name, "0"] > score[name, "3"] > score[name, "5"]
    fell, _, visible = next(line for line in done.stdout.splitlines() if "fell in" in line).split()[4:7]
    assert int(fell) >= 0.9 * int(visible) > 0
