"""latent-critic halving: records, goes on, simulates, and says it as text, JSON and CSV."""

import csv
import json

import pytest
from latent_critic.core.cli.main import main

SMALL = ["--groups", "4", "--candidates", "4", "--steps", "3", "--looks", "0.3,0.7", "--size", "64", "--guidance", "1"]


def test_two_parts_make_the_whole(diffusers, tmp_path, capsys):
    one, two = str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")
    # Half of the groups is too little for a result, but it is recorded.
    assert main(["halving", "--record", one, "--part", "1/2", *SMALL]) == 2
    assert main(["halving", "--record", two, "--part", "2/2", *SMALL]) == 2
    before = (tmp_path / "one.jsonl").read_bytes()
    files = ["--json", str(tmp_path / "found.json"), "--csv", str(tmp_path / "found.csv")]
    capsys.readouterr()
    assert main(["halving", "--record", one, two, *SMALL, *files]) == 0
    assert (tmp_path / "one.jsonl").read_bytes() == before
    said = capsys.readouterr().out
    assert "4 groups of 4 seeds" in said
    assert "Rank correlation" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["look"] for row in found["agreement"]] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert all(row["cost"] <= row["budget"] + 1e-9 for row in found["chosen"])
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"chosen", "single look", "random"}
    assert len(rows) == sum(len(found[key]) for key in ("chosen", "single_look", "random"))


@pytest.mark.parametrize(
    "wrong",
    [["--looks", "half"], ["--looks", "0"], ["--part", "3/2"], ["--part", "x"], ["--groups", "1"], ["--model", "no"]],
)
def test_wrong_usage(tmp_path, wrong):
    assert main(["halving", "--record", str(tmp_path / "r.jsonl"), *SMALL, *wrong]) == 2
    assert not (tmp_path / "r.jsonl").exists() or "--part" not in wrong


def test_a_recording_of_something_else(tmp_path):
    (tmp_path / "r.jsonl").write_text("some text\n")
    assert main(["halving", "--record", str(tmp_path / "r.jsonl"), *SMALL]) == 2
    assert (tmp_path / "r.jsonl").read_text() == "some text\n"
