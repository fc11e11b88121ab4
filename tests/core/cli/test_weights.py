"""`--weights`: a judge of one's own instead of the shipped one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from latent_critic.core.methods.judge import SHIPPED
from latent_critic.core.nets.judge_file import digest, read, save
from PIL import Image


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A judge that calls everything better than the shipped one does."""
    network, facts = read(SHIPPED)
    network.head.centre -= 0.5
    path = tmp_path_factory.mktemp("judge") / "mine.safetensors"
    save(path, network, replace(facts, calibrated_on="my own ratings"))
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder of noise of rising strength, large enough for the judge."""
    draw = np.random.default_rng(0)
    (tmp_path / "pics").mkdir()
    for place in range(8):
        pixels = (128 + place * 8 * draw.normal(size=(48, 64, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pics" / f"p{place}.png")
    return tmp_path / "pics"


def rows(cli, command, *arguments):
    code, out, err = cli(command, *arguments, "--device", "cpu", "--json", "-")
    assert code == 0, err
    return json.loads(out)


def test_score_rank_and_reject_use_the_file(cli, pictures, mine, tmp_path):
    shipped = {row["path"]: row["score"] for row in rows(cli, "score", pictures)}
    scored = {row["path"]: row["score"] for row in rows(cli, "score", pictures, "--weights", mine)}
    assert scored.keys() == shipped.keys()
    assert all(abs(scored[path] - shipped[path]) > 0.01 for path in scored)
    assert {row["path"]: row["score"] for row in rows(cli, "rank", pictures, "--weights", mine)} == scored
    sorted_by = rows(cli, "reject", pictures, "--top-k", 1, "--dry-run", "--out", tmp_path / "o", "--weights", mine)
    assert {row["path"]: row["score"] for row in sorted_by} == scored
    assert "calibrated on my own ratings" in cli("score", pictures, "--weights", mine)[2]


def test_benchmark_logs_which_weights_it_measured(cli, pictures, mine, tmp_path):
    listing = pictures / "ratings.csv"
    listing.write_text("\n".join(f"p{place}.png,{10 * place}" for place in range(8)))
    log = tmp_path / "log.jsonl"
    rows(cli, "benchmark", "--data", "csv", "--root", listing, "--weights", mine, "--log", log)
    assert json.loads(log.read_text())["settings"]["weights"] == digest(mine) != digest(SHIPPED)


def test_a_journal_of_other_weights_is_refused(cli, pictures, mine, tmp_path):
    assert cli("score", pictures, "--resume", tmp_path / "j")[0] == 0
    code, _, err = cli("score", pictures, "--resume", tmp_path / "j", "--weights", mine)
    assert code == 2
    assert "another scorer" in err


@pytest.mark.parametrize("content", [None, b"", b"no judge"])
def test_a_file_that_is_no_judge_is_refused(cli, pictures, tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    code, out, err = cli("score", pictures, "--weights", path)
    assert (code, out) == (2, "")
    assert "a judge's weights" in err
    assert len(err.splitlines()) == 1
