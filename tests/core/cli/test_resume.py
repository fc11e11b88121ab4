"""The journal: a run that is killed at any moment goes on, scores nothing twice, and leaves no torn line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latent_critic.core.cli.journal import FileStamp, Journal
from latent_critic.core.errors import BadInput
from latent_critic.core.records import Score, ScoreSpec

SPEC = ScoreSpec("judge", scale=(0, 100), settings={"sigmas": [0.1, 0.2]})

#: A run of the command line with a slow scorer, in a process of its own, to be killed.
SLOW = """
import sys, time
from latent_critic.core.cli import scoring
from latent_critic.core.cli.main import main
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec

class Slow:
    spec = ScoreSpec("judge", scale=(0, 100))
    def score(self, images, prompts=None, *, watch=None):
        time.sleep(0.02)
        with open("calls.txt", "a") as log:
            log.write("x" * len(images))
        return ScoreBatch(self.spec, tuple(Score(100 * float(image.mean()), i) for i, image in enumerate(images)))

scoring.load_scorer = lambda *_: Slow()
sys.exit(main(["score", "pics", "--resume", "journal.jsonl", "--json", "out.json", "--batch", "3"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_run_killed_again_and_again_ends_with_every_score(tmp_path, greys):
    paths = greys(*(i % 101 for i in range(120)))
    journal = tmp_path / "journal.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start():
        return subprocess.Popen([sys.executable, "-c", SLOW], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)

    for kill in range(2):
        before = journal.stat().st_size if journal.exists() else 0
        process = start()
        end = time.monotonic() + 60
        while (journal.stat().st_size if journal.exists() else 0) < before + 2500 and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late"
        # What a kill in the middle of a write leaves.
        with journal.open("ab") as file:
            file.write(b'{"path": "/half/a/li')
    process = start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["path"] for line in lines[1:]] == [str(path) for path in paths]
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["index"] for row in rows] == list(range(120))
    assert [round(row["score"]) for row in rows] == [i % 101 for i in range(120)]
    # Only the batch that was under way at each kill may have been scored again.
    assert 120 <= len((tmp_path / "calls.txt").read_text()) <= 120 + 2 * 3


def test_a_finished_run_scores_nothing_again(cli, scorer, greys, tmp_path):
    greys(10, 20, 30)
    first = cli("score", tmp_path / "pics", "--resume", tmp_path / "j", "--json", "-")
    assert scorer.seen == 3
    assert cli("score", tmp_path / "pics", "--resume", tmp_path / "j", "--json", "-") == first
    assert scorer.seen == 3


def test_resume_alone_keeps_its_journal_here(cli, scorer, greys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    greys(10, 20)
    for _ in range(2):
        assert cli("score", "pics", "--resume")[0] == 0
    assert scorer.seen == 2
    assert (tmp_path / "latent-critic.journal.jsonl").exists()
    code, _, err = cli("score", "pics", "--resume", "pics")
    assert code == 2
    assert "a folder" in err


def test_changed_new_and_failed_pictures_are_scored(cli, scorer, greys, tmp_path):
    paths = greys(10, 20, 30)
    (tmp_path / "pics" / "late.png").touch()
    cli("score", tmp_path / "pics", "--resume", tmp_path / "j")
    assert scorer.seen == 3
    (tmp_path / "pics" / "late.png").write_bytes(paths[2].read_bytes())
    paths[0].write_bytes(paths[1].read_bytes())
    greys(90, folder="more")
    code, out, _ = cli("score", tmp_path / "pics", tmp_path / "more", "--resume", tmp_path / "j", "--json", "-")
    assert code == 0
    assert [round(row["score"]) for row in json.loads(out)] == [30, 20, 20, 30, 90]
    assert scorer.seen == 6


def test_the_journal_keeps_to_one_scorer(cli, scorer, greys, tmp_path):
    greys(10)
    cli("score", tmp_path / "pics", "--resume", tmp_path / "j")
    scorer.spec = ScoreSpec("judge", scale=(0, 100), settings={"seed": 2})
    code, _, err = cli("score", tmp_path / "pics", "--resume", tmp_path / "j")
    assert code == 2
    assert "another scorer" in err


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n", b"my thesis, unfinished", b"[1]\n", b'{"a": 1}\n', b'{"a": 1}\n{"b"', b"path,score\n1,2\n"],
)
def test_another_file_is_refused_and_left_as_it_was(tmp_path, content):
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="Name another file"):
        Journal(path, SPEC)
    assert path.read_bytes() == content


def stamps(count):
    return [FileStamp(f"/p/ä {i}\n.png", i, 10**18 + i) for i in range(count)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_at_any_byte_it_keeps_every_whole_line(tmp_path, data):
    values = data.draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4))
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    with Journal(path, SPEC) as journal:
        journal.add(zip(stamps(len(values)), (Score(v, i) for i, v in enumerate(values)), strict=True))
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = max(0, content[:cut].count(b"\n") - 1)
    with Journal(path, SPEC) as journal:
        assert [journal.value(stamp) for stamp in stamps(len(values))] == [
            *values[:whole],
            *[None] * (len(values) - whole),
        ]
        journal.add([(stamps(5)[4], Score(1.5, 0))])
    with Journal(path, SPEC) as journal:
        assert journal.value(stamps(5)[4]) == 1.5
        assert [journal.value(stamp) for stamp in stamps(whole)] == values[:whole]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "record",
    [
        {"path": ["x"], "size": 1, "changed": 1, "score": 3},
        {"path": "x", "size": "1", "changed": 1, "score": 3},
        {"path": "x", "size": 1, "changed": 1, "score": "abc"},
        {"path": "x", "size": 1, "changed": 1, "score": float("nan")},
        {"path": "x", "size": 1, "changed": 1, "score": True},
    ],
)
def test_lines_of_other_kinds_of_values_are_refused(tmp_path, record):
    path = tmp_path / "j"
    Journal(path, SPEC).close()
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    content = path.read_bytes()
    with pytest.raises(BadInput, match="line 2"):
        Journal(path, SPEC)
    assert path.read_bytes() == content


def test_a_full_disk_names_the_journal(cli, scorer, greys, tmp_path, monkeypatch):
    greys(50)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, err = cli("score", tmp_path / "pics", "--resume", tmp_path / "j")
    assert code == 1
    assert f"write {tmp_path / 'j'}" in err
    assert "Free some room" in err
