"""The history file: percentiles, repeats, the cap, several processes, kills in the middle of a write, damage."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core import database
from latent_critic.core.errors import BadInput, UnreadableFile, UnwritableFile
from latent_critic.core.history.place import VARIABLE, location
from latent_critic.core.history.rows import Standing
from latent_critic.core.history.store import COLUMNS, Choice, History
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec

JUDGE = ScoreSpec("judge", scale=(0, 100), calibrated_on="photographs")
ZERO = ScoreSpec("zero_shot", direction="lower", needs=("image", "prompt"), backbone="sd15:abc", settings={"s": (1, 2)})

#: Adds one score after another until it is killed; a line on standard output says which one is surely stored.
WRITER = """
import sys
from latent_critic.core.history.store import History
from latent_critic.core.records import Score, ScoreBatch, ScoreSpec
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec, history = ScoreSpec("judge", scale=(0, 100)), History(path, timeout=60)
for number in range(count):
    scores = tuple(Score(float(number % 100), i, seed=number, attributes={}) for i in range(4))
    history.record(ScoreBatch(spec, scores), [f"{name} {number} {i}" for i in range(4)], ["p" * 2000] * 4)
    print(number, flush=True)
"""


def batch(*values, spec=JUDGE, seed=None):
    return ScoreBatch(spec, tuple(Score(v, i, None if v is not None else "broken", seed) for i, v in enumerate(values)))


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "user" / "history.sqlite")


def check(path):
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    count = db.execute("SELECT count(*) FROM scores").fetchone()[0]
    db.close()
    return count


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_percentile_is_the_share_of_earlier_scores_that_are_worse(history, direction):
    spec = ScoreSpec("x", direction=direction)
    assert history.record(batch(*range(10), spec=spec), [f"old {i}" for i in range(10)]) == [None] * 10
    found = history.record(batch(-1, 4, 4.5, 99, None, spec=spec), [f"new {i}" for i in range(5)])
    expected = [0, 45, 50, 100] if direction == "higher" else [100, 55, 50, 0]
    assert found == [*(Standing(share, 10) for share in expected), None]


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=12), value=st.integers(0, 5))
def test_percentile_against_counting_by_hand(tmp_path_factory, values, value):
    history = History(tmp_path_factory.mktemp("h") / "h.sqlite")
    history.record(batch(*map(float, values)), [str(i) for i in range(len(values))])
    (found,) = history.record(batch(float(value)), ["new"])
    assert found is not None
    mine = sum((v < value) + 0.5 * (v == value) for v in values) / len(values)
    assert found.percentile == pytest.approx(100 * mine)
    assert found.among == len(values)


def test_a_conditioning_is_never_taken_for_a_text(history):
    history.record(batch(1.0, 2.0), ["a", "b"], conditionings=["f" * 32, "0" * 32])
    history.record(batch(3.0), ["c"], ["f" * 32])
    found = [row["prompt"] for row in history.query()]
    assert found[1:] == ["c:" + "0" * 32, "c:" + "f" * 32]
    assert ":" not in found[0]
    history.record(batch(1.0, 2.0), ["d", "e"], conditionings=[None, "1" * 32])
    assert {row["prompt"] for row in history.query()[:2]} == {None, "c:" + "1" * 32}
    with pytest.raises(BadInput, match="2 conditionings"):
        history.record(batch(1.0, 2.0), ["a", "b"], conditionings=["f"])


def test_other_scorers_settings_and_models_do_not_count(history):
    history.record(batch(1.0, 2.0), ["a", "b"])
    for other in (ScoreSpec("judge", scale=(0, 100)), ScoreSpec("judge", backbone="sd15"), ZERO):
        assert history.record(batch(5.0, spec=other), ["c"]) == [None]
    assert history.record(batch(5.0), ["d"]) == [Standing(100, 2)]


def test_the_same_picture_counts_once_and_never_against_itself(history):
    history.record(batch(1.0, 2.0, 3.0), ["a", "b", "c"])
    for _ in range(3):
        assert history.record(batch(3.0), ["c"]) == [Standing(100, 2)]
    assert len(history.query()) == 3
    history.record(batch(3.0), [None])
    history.record(batch(3.0), [None])
    assert len(history.query()) == 5


def test_a_prompt_tells_scores_apart_only_where_the_scorer_reads_it(history):
    for prompt in ("a cat", "a dog", "a cat"):
        history.record(batch(1.0), ["x"], [prompt])
        history.record(batch(1.0, spec=ZERO), ["x"], [prompt])
    assert [row["scorer"] for row in history.query()] == ["zero_shot", "zero_shot", "judge"]
    assert "a cat" not in history.path.read_bytes().decode("latin-1")


def test_everything_comes_back(history):
    seed = 2**64 - 1
    history.record(batch(1.5, None, spec=ZERO, seed=seed), ["a", "b"], ["p", "q"], at=1_700_000_000.25)
    bad, good = history.query()
    assert tuple(good) == COLUMNS
    assert good["time"] == "2023-11-14T22:13:20.250+00:00"
    assert (good["score"], good["seed"], good["model"], good["image"]) == (1.5, seed, "sd15:abc", "a")
    assert (bad["score"], bad["reason"]) == (None, "broken")
    assert good["prompt"] != bad["prompt"]
    (spec,) = history.specs().values()
    assert spec.digest == ZERO.digest == good["spec"]
    assert json.loads(json.dumps(good)) == good


def test_choices_and_summary(history):
    history.record(batch(1.0, 2.0, 3.0, None), list("abcd"), at=100.0)
    history.record(batch(7.0, 8.0, spec=ZERO), list("ab"), at=200.0)
    assert [row["score"] for row in history.query(Choice(scorer="judge"), most=2)] == [None, 3.0]
    assert len(history.query(Choice(model="sd15"))) == 2
    assert history.query(Choice(model="d15")) == []
    assert len(history.query(Choice(since=200.0))) == 2
    assert len(history.query(Choice(scorer="judge", since=100.0, until=200.0))) == 4
    judge, zero = history.summary()
    assert (judge["count"], judge["scored"], judge["lowest"], judge["highest"]) == (4, 3, 1.0, 3.0)
    assert (judge["median"], zero["median"], zero["direction"]) == (2.0, 7.5, "lower")
    assert history.summary(Choice(since=1e9)) == []


def test_the_cap_drops_the_oldest(tmp_path):
    history = History(tmp_path / "h.sqlite", cap=10)
    for number in range(25):
        history.record(batch(float(number)), [str(number)])
    assert [row["score"] for row in history.query()] == [float(n) for n in range(24, 14, -1)]
    assert history.prune(3) == 7
    assert history.prune(0, Choice(scorer="other")) == 0
    history.record(batch(1.0, spec=ZERO), ["z"])
    assert history.prune(0, Choice(scorer="judge")) == 3
    assert [row["scorer"] for row in history.summary()] == ["zero_shot"]
    assert len(history.specs()) == 1


def test_pruning_gives_the_space_back(tmp_path):
    history = History(tmp_path / "h.sqlite")
    history.record(batch(*map(float, range(5000))), [f"{n:064d}" for n in range(5000)])
    before = history.path.stat().st_size
    history.prune(10)
    assert history.path.stat().st_size < before / 4


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "h.sqlite"
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(n), "30"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for n in range(4)
    ]
    assert [process.wait(120) for process in started] == [0] * 4
    assert check(path) == 4 * 30 * 4


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX; Windows ends processes differently")
def test_a_kill_at_any_moment_leaves_the_file_whole(tmp_path):
    path, chance, stored = tmp_path / "h.sqlite", random.Random(0), 0
    for attempt in range(30):
        command = [sys.executable, "-c", WRITER, path, str(attempt), "100000"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            # The first kills fall into the making of the file, the later ones anywhere in a write.
            done = 0 if attempt < 4 else len([writer.stdout.readline() for _ in range(chance.randint(1, 4))])
            time.sleep(chance.uniform(0.02, 0.2) if attempt < 4 else chance.uniform(0, 0.004))
            os.kill(writer.pid, signal.SIGKILL)
            done += len(writer.stdout.read().splitlines())
        History(path).prune(10**9)  # opens to write, and finishes what the kill cut short
        found = check(path)
        assert found % 4 == 0  # a batch is stored whole or not at all
        assert stored + 4 * done <= found <= stored + 4 * (done + 1)
        stored = found
    assert stored > 0


@pytest.mark.parametrize("damage", ["text", "middle", "cut"])
def test_a_damaged_file_is_set_aside_never_deleted(tmp_path, caplog, damage):
    history = History(tmp_path / "h.sqlite", set_damaged_aside=True)
    history.record(batch(*map(float, range(500))), [str(n) for n in range(500)])
    content = bytearray(history.path.read_bytes())
    if damage == "text":
        content[:] = b"this is not a database, it is a text\n" * 200
    elif damage == "middle":
        content[4096:-1] = b"\xa5" * (len(content) - 4097)
    else:
        del content[5000:]
    history.path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        History(history.path).record(batch(1.0), ["x"])
    assert history.path.read_bytes() == content
    with caplog.at_level(logging.WARNING):
        assert history.record(batch(1.0), ["x"]) == [None]
    assert [row["score"] for row in history.query()] == [1.0]
    (aside,) = tmp_path.glob("h.damaged-*.sqlite")
    assert aside.read_bytes() == content
    assert str(aside) in caplog.text
    assert check(history.path) == 1


def test_foreign_and_newer_files_are_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(UnreadableFile, match="another program"):
        History(path, set_damaged_aside=True).record(batch(1.0), ["x"])
    assert path.read_bytes() == before
    ours = History(tmp_path / "h.sqlite", set_damaged_aside=True)
    ours.record(batch(1.0), ["x"])
    db = sqlite3.connect(ours.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(UnreadableFile, match="version 2"):
        ours.query()
    assert not list(tmp_path.glob("*damaged*"))


def test_what_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "h.sqlite", tmp_path):
        with pytest.raises(UnwritableFile):
            History(path).record(batch(1.0), ["x"])
    history = History(tmp_path / "h.sqlite", timeout=0.05)
    history.record(batch(1.0), ["x"])
    other = sqlite3.connect(history.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnwritableFile, match="locked"):
        history.record(batch(2.0), ["y"])
    other.close()
    assert len(history.query()) == 1


def test_bad_input_is_refused(history):
    with pytest.raises(BadInput):
        history.record(batch(1.0, 2.0), ["x"])
    with pytest.raises(BadInput):
        history.record(batch(1.0), ["x"], ["p", "q"])
    with pytest.raises(BadInput):
        history.prune(-1)
    with pytest.raises(BadInput):
        History(history.path, cap=0)
    assert not history.path.exists()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", "default"),
        ("on", "default"),
        ("1", "default"),
        ("Off", None),
        ("0", None),
        ("false", None),
        ("/a/b", "/a/b"),
    ],
)
def test_the_environment_variable(monkeypatch, word, expected):
    monkeypatch.setenv("LATENT_CRITIC_HISTORY", word)
    assert location(Path("default")) == (None if expected is None else Path(expected))


def test_it_needs_no_torch(tmp_path):
    code = "import sys, latent_critic.core.history.store; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_reading_waits_for_no_writer_and_needs_no_right_to_write(history):
    history.record(batch(1.0, 2.0), ["a", "b"])
    writer = sqlite3.connect(history.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM scores")
    quick = History(history.path, timeout=0.01)
    assert [row["score"] for row in quick.query()] == [2.0, 1.0]
    assert quick.summary()[0]["count"] == 2
    assert len(quick.specs()) == 1
    writer.execute("ROLLBACK")
    writer.close()


def test_reading_makes_no_file(history):
    assert (history.query(), history.summary(), history.specs()) == ([], [], {})
    assert not history.path.exists()


def test_a_sound_file_that_another_process_has_made_meanwhile_is_not_set_aside(history, monkeypatch):
    history.record(batch(1.0), ["old"])
    history.path.write_bytes(b"damaged, no database at all\n" * 200)
    here = History(history.path, set_damaged_aside=True)
    once, seen = database._once, []

    def overtaken(path, layout, work, timeout):
        if not seen:
            seen.append(path)
            # The other one finds the same damage, sets the file aside and writes, all before we do.
            monkeypatch.setattr(database, "_once", once)
            try:
                return once(path, layout, work, timeout)
            finally:
                History(path, set_damaged_aside=True).record(batch(7.0), ["theirs"])
        return once(path, layout, work, timeout)

    monkeypatch.setattr(database, "_once", overtaken)
    here.record(batch(8.0), ["mine"])
    assert [row["score"] for row in here.query()] == [8.0, 7.0]
    assert len(list(history.path.parent.glob("*damaged*"))) == 1


def test_previews_go_before_the_scores_of_finished_images(tmp_path):
    history = History(tmp_path / "h.sqlite", cap=20)
    preview = ScoreSpec("judge", scale=(0, 100), settings={"preview": {"step": 3}})
    history.record(batch(*map(float, range(15))), [f"done {i}" for i in range(15)])
    for number in range(30):
        history.record(batch(50.0, spec=preview), [f"preview {number}"])
    rows = history.query()
    assert len(rows) <= 20
    assert sorted(row["score"] for row in rows if row["score"] != 50.0) == list(range(15))


def test_a_home_folder_of_nobody_is_refused_clearly(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "~nobody-of-this-name/h.sqlite")
    with pytest.raises(BadInput, match="home folder"):
        location(tmp_path)


def test_a_file_that_another_process_lays_out_between_two_questions(tmp_path, monkeypatch):
    """Whose file it is has to be asked of one state of it."""
    path = tmp_path / "new.sqlite"
    layout = database.Layout(application=7, version=1, schema=("CREATE TABLE rows (value)",))
    connect, others = sqlite3.connect, []

    class Raced(sqlite3.Connection):
        def execute(self, sql, *values):
            if "sqlite_master" in sql and not others:
                others.append(connect(path, timeout=0, isolation_level=None))
                try:
                    database._lay_out(others[0], layout)
                except sqlite3.OperationalError:
                    others[0].close()  # a reader holds the file as it is
            return super().execute(sql, *values)

    monkeypatch.setattr(database.sqlite3, "connect", lambda *given, **named: connect(*given, factory=Raced, **named))
    assert database.transact(path, layout, lambda db: db.execute("SELECT count(*) FROM rows").fetchone()[0]) == 0
    assert others
