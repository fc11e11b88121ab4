"""`latent-critic history`: summary, list, export, pruning, and what it refuses."""

from __future__ import annotations

import csv
import json

import pytest
from latent_critic.core.history.store import COLUMNS, History
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec

JUDGE = ScoreSpec("judge", scale=(0, 100), calibrated_on="photographs")
ZERO = ScoreSpec("zero_shot", backbone="sd15:0123")


@pytest.fixture
def file(tmp_path):
    """A history of five scores by two scorers."""
    history = History(tmp_path / "history.sqlite")
    scores = (Score(10.0, 0, seed=2**63), Score(30.0, 1), Score(None, 2, 'broken, "quite"'))
    history.record(ScoreBatch(JUDGE, scores), ["a", "b", "c"], ["p", "q", "r"], at=1_700_000_000)
    history.record(ScoreBatch(ZERO, (Score(0.5, 0), Score(0.7, 1))), ["a", "b"], at=1_800_000_000)
    return history.path


def test_summary(cli, file):
    code, out, _ = cli("history", "--file", file)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 3
    assert lines[1].split()[0] == "judge"
    assert {"3", "10.0", "20.0", "30.0", "2023-11-14"} <= set(lines[1].split())
    assert "sd15:0123" in lines[2]
    _, out, _ = cli("history", "--file", file, "--json", "--scorer", "zero_shot")
    (row,) = json.loads(out)
    assert (row["count"], row["median"], row["model"]) == (2, pytest.approx(0.6), "sd15:0123")


def test_list_takes_the_newest_that_fit(cli, file):
    _, out, _ = cli("history", "--file", file, "--list", 2)
    assert [line.split()[1:3] for line in out.splitlines()[1:]] == [["zero_shot", "0.7"], ["zero_shot", "0.5"]]
    _, out, _ = cli("history", "--file", file, "--list", 9, "--until", "2025-01-01")
    assert len(out.splitlines()) == 4
    assert str(2**63) in out
    _, out, _ = cli("history", "--file", file, "--list", 9, "--since", "2025-01-01T00:00", "--model", "sd15")
    assert len(out.splitlines()) == 3


def test_export_as_csv_and_jsonl(cli, file, tmp_path):
    code, _, err = cli("history", "--file", file, "--export", tmp_path / "x.csv")
    assert code == 0
    assert "wrote" in err
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["score"] for row in rows] == ["10.0", "30.0", "", "0.5", "0.7"]
    assert rows[2]["reason"] == 'broken, "quite"'
    cli("history", "--file", file, "--export", tmp_path / "x.jsonl")
    _, out, _ = cli("history", "--file", file, "--export", "-")
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == out
    found = [json.loads(line) for line in out.splitlines()]
    assert found[0]["seed"] == 2**63
    assert found[4]["spec"]["backbone"] == "sd15:0123"
    assert len({row["image"] for row in found}) == 3


def test_prune_keeps_the_newest_of_the_chosen(cli, file):
    code, out, err = cli("history", "--file", file, "--prune", 1, "--scorer", "judge")
    assert (code, out) == (0, "")
    assert "removed 2 scores" in err
    assert [row["score"] for row in History(file).query()] == [0.7, 0.5, None]
    _, _, err = cli("history", "--file", file, "--prune", 0)
    assert "removed 3" in err
    assert cli("history", "--file", file)[1] == "no scores\n"


def test_export_comes_before_prune(cli, file, tmp_path):
    cli("history", "--file", file, "--prune", 0, "--export", tmp_path / "all.jsonl")
    assert len((tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_the_environment_variable_names_the_file(cli, file, monkeypatch):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", str(file))
    assert len(cli("history")[1].splitlines()) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ["--file", "missing.sqlite"],
        ["--since", "yesterday"],
        ["--export", "x.xlsx"],
        ["--list", "-1"],
        ["--prune", "-1"],
        [],
    ],
)
def test_wrong_input_is_code_two(cli, file, monkeypatch, wrong):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", "off" if not wrong else str(file))
    code, out, err = cli("history", *wrong)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert len(History(file).query()) == 5


def test_a_file_that_is_no_history_is_refused_and_left_alone(cli, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("no history at all, only a text that is longer than a header" * 20)
    before = other.read_bytes()
    assert cli("history", "--file", other, "--prune", 0)[0] == 2
    assert other.read_bytes() == before
    assert list(tmp_path.iterdir()) == [other]
