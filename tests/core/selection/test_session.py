"""The best of a session over many runs: restarts, repairs, two processes, kills. Files are small JSON texts."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from latent_critic.core.errors import BadInput
from latent_critic.core.records import Score, ScoreSpec
from latent_critic.core.selection.policy import Policy
from latent_critic.core.selection.session import INDEX, Known, Picture, Session

SPEC = ScoreSpec("judge", scale=(0, 100), calibrated_on="photographs")
TOP3 = Policy(top_k=3)


def read(path):
    """What a file of these tests says of itself."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return Known(Score(found["value"], 0, found["reason"], found["seed"]), found["spec"], found["pixels"])


def picture(value, pixels=None, spec=SPEC, seed=None):
    """A picture that saves itself as JSON, whole or not at all, under a number that nobody has."""
    score = Score(value, 0, None if value is not None else "NaN pixels", seed)
    pixels = pixels or f"pixels of {value}"
    text = json.dumps(
        {
            "value": value,
            "reason": score.reason,
            "seed": seed,
            "spec": spec.digest,
            "pixels": pixels,
            "fill": "x" * 3000,
        }
    )

    def save(folder, number):
        while True:
            path = folder / f"x_{number:05}_.png"
            try:
                path.touch(exist_ok=False)
                break
            except FileExistsError:
                number += 1
        temporary = folder / f".{path.name}.{os.getpid()}.tmp.png"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
        return path

    return Picture(score, pixels, save)


def lying(folder):
    """Side → the values of the files that lie there."""
    return {
        side: sorted((json.loads(p.read_text())["value"] for p in (folder / side).glob("*.png")), key=str)
        for side in ("best", "rest")
    }


def check(folder):
    """The index says what is in the folder, and nothing unfinished is left after one more look."""
    import sqlite3

    db = sqlite3.connect(folder / INDEX)
    indexed = {path for (path,) in db.execute("SELECT path FROM pictures")}
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    found = {f"{side}/{path.name}" for side in ("best", "rest") for path in (folder / side).iterdir()}
    assert indexed == found


@pytest.fixture
def run(tmp_path):
    """One run with a fresh Session, as after a restart: `run(values…)`."""

    def go(*values, policy=TOP3, spec=SPEC):
        pictures = [value if isinstance(value, Picture) else picture(value, spec=spec) for value in values]
        return Session(tmp_path / "s", read).add(spec, pictures, policy)

    return go


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_top_k_over_many_runs_with_a_restart_before_each(run, tmp_path, direction):
    spec = ScoreSpec("x", direction=direction)
    chance, values = random.Random(1), []
    for _ in range(25):
        value = chance.random()
        values.append(value)
        outcome = run(value, spec=spec)
        best = sorted(values, reverse=direction == "higher")[:3]
        assert [member.score.value for member in outcome.best] == best
        assert lying(tmp_path / "s")["best"] == sorted(best, key=str)
        assert outcome.added[0].best == (value in best)
        assert outcome.seen == len(values) == sum(map(len, lying(tmp_path / "s").values()))
        check(tmp_path / "s")


def test_top_percent_grows_with_the_session(run, tmp_path):
    policy = Policy(percentile=75)
    for number in range(1, 41):
        outcome = run(float(100 - number), policy=policy)
        assert len(outcome.best) == -(-number // 4)
        assert [m.score.value for m in outcome.best] == [float(100 - n) for n in range(1, len(outcome.best) + 1)]
    check(tmp_path / "s")


def test_a_demoted_picture_is_moved_as_it_is(run, tmp_path):
    first = run(50.0, policy=Policy(top_k=1)).added[0]
    content = first.path.read_bytes()
    outcome = run(60.0, policy=Policy(top_k=1))
    assert not first.path.exists()
    assert (tmp_path / "s/rest" / first.path.name).read_bytes() == content
    assert outcome.added[0].path.parent.name == "best"
    assert "rank 1 of 2" in outcome.added[0].why


def test_an_image_without_a_score_goes_to_the_rest_with_the_reason(run, tmp_path):
    outcome = run(None, 10.0, policy=Policy(top_k=5))
    assert [member.best for member in outcome.added] == [False, True]
    assert outcome.added[0].why == "not scored: NaN pixels"
    assert (outcome.seen, outcome.unscored) == (2, 1)
    assert lying(tmp_path / "s") == {"best": [10.0], "rest": [None]}


def test_ties_keep_the_earlier_picture(run):
    first = run(picture(5.0, "a"), policy=Policy(top_k=1)).added[0]
    outcome = run(picture(5.0, "b"), policy=Policy(top_k=1))
    assert [member.path for member in outcome.best] == [first.path]


def test_the_same_picture_again_is_not_saved_twice(run, tmp_path):
    run(1.0, 2.0, 3.0, 4.0)
    outcome = run(4.0, 1.0, picture(9.0, "new"), picture(9.0, "new"))
    assert outcome.repeated == 3
    assert [member.best for member in outcome.added] == [True, False, True, True]
    assert outcome.added[2] == outcome.added[3]
    assert outcome.seen == 5
    assert lying(tmp_path / "s") == {"best": [3.0, 4.0, 9.0], "rest": [1.0, 2.0]}


def test_another_rule_at_the_next_run_moves_what_it_must(run, tmp_path):
    run(1.0, 2.0, 3.0, 4.0, 5.0)
    run(6.0, policy=Policy(top_k=5))
    assert lying(tmp_path / "s") == {"best": [2.0, 3.0, 4.0, 5.0, 6.0], "rest": [1.0]}
    run(policy=Policy(top_k=1))
    assert lying(tmp_path / "s")["best"] == [6.0]


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_lost_index_is_made_again_from_the_files(run, tmp_path, caplog, damage):
    run(1.0, picture(2.0, seed=2**64 - 1), 3.0, 4.0, None)
    index = tmp_path / "s" / INDEX
    index.unlink() if damage == "gone" else index.write_bytes(b"\xa5" * 9000)
    with caplog.at_level(logging.WARNING):
        outcome = run(2.5, 1.0)
    assert outcome.repeated == 1
    assert (outcome.seen, outcome.unscored) == (6, 1)
    assert lying(tmp_path / "s") == {"best": [2.5, 3.0, 4.0], "rest": [1.0, 2.0, None]}
    check(tmp_path / "s")
    if damage == "damaged":
        (aside,) = (tmp_path / "s").glob("*.damaged-*")
        assert aside.read_bytes() == b"\xa5" * 9000
        assert str(aside) in caplog.text


def test_files_that_the_user_moves_deletes_and_adds(run, tmp_path):
    outcome = run(1.0, 2.0, 3.0, 4.0)
    outcome.best[0].path.unlink()
    outcome.added[0].path.rename(tmp_path / "s/best/mine.png")
    (tmp_path / "s/best/holiday.png").write_bytes(b"no score")
    assert [member.score.value for member in run().best] == [3.0, 2.0, 1.0]
    assert (tmp_path / "s/best/mine.png").exists()
    run(5.0)
    assert (tmp_path / "s/best/holiday.png").read_bytes() == b"no score"
    assert json.loads((tmp_path / "s/rest/mine.png").read_text())["value"] == 1.0
    check(tmp_path / "s")


def test_no_name_is_ever_taken_from_another_file(run, tmp_path):
    first = run(1.0, policy=Policy(top_k=1)).added[0]
    (tmp_path / "s/rest" / first.path.name).write_bytes(b"theirs")
    (tmp_path / "s/best/x_00002_.png").write_bytes(b"theirs too")
    run(2.0, policy=Policy(top_k=1))
    assert (tmp_path / "s/rest" / first.path.name).read_bytes() == b"theirs"
    assert (tmp_path / "s/best/x_00002_.png").read_bytes() == b"theirs too"
    assert json.loads((tmp_path / "s/rest/x-2_00001_.png").read_text())["value"] == 1.0
    assert json.loads((tmp_path / "s/best/x_00003_.png").read_text())["value"] == 2.0
    assert run(policy=Policy(top_k=1)).seen == 2


def test_a_session_belongs_to_one_scorer_and_its_settings(run, tmp_path):
    run(1.0)
    before = sorted((tmp_path / "s").rglob("*.png"))
    with pytest.raises(BadInput, match="new session"):
        run(2.0, spec=ScoreSpec("judge", scale=(0, 100), settings={"views": 2}))
    assert sorted((tmp_path / "s").rglob("*.png")) == before
    assert run(3.0).seen == 2


def test_a_full_disk_in_the_middle_keeps_what_was_saved(run, tmp_path):
    def full(folder, number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run(1.0, 2.0, 3.0)
    with pytest.raises(OSError, match="No space"):
        run(picture(9.0), Picture(Score(8.0, 0), "p", full), picture(7.0))
    assert lying(tmp_path / "s")["best"] == [1.0, 2.0, 3.0, 9.0]
    outcome = run(9.0, 8.0)
    assert outcome.repeated == 1
    assert lying(tmp_path / "s") == {"best": [3.0, 8.0, 9.0], "rest": [1.0, 2.0]}
    check(tmp_path / "s")


def test_a_file_that_is_held_open_moves_at_the_next_run(run, tmp_path, monkeypatch, caplog):
    run(1.0, policy=Policy(top_k=1))

    plain = Path.replace

    def held(self, target):
        if self.name.startswith("x_"):
            raise PermissionError(errno.EACCES, "in use")
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        outcome = run(2.0, policy=Policy(top_k=1))
    assert len(outcome.best) == 2
    assert "stays where it is" in caplog.text
    assert lying(tmp_path / "s") == {"best": [1.0, 2.0], "rest": []}
    run(policy=Policy(top_k=1))
    assert lying(tmp_path / "s") == {"best": [2.0], "rest": [1.0]}


#: Adds one picture after another through this very file's helpers; a line says which one is surely in.
WRITER = """
import importlib.util, random, sys
from pathlib import Path
file, folder, name, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
found = importlib.util.spec_from_file_location("helpers", file)
helpers = importlib.util.module_from_spec(found)
found.loader.exec_module(helpers)
chance = random.Random(name)
for number in range(count):
    value = chance.random()
    helpers.Session(folder, helpers.read).add(helpers.SPEC, [helpers.picture(value)], helpers.TOP3)
    print(value, flush=True)
"""


def writer(folder, name, count, **options):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, __file__, str(folder), str(name), str(count)],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def everything(folder):
    return Counter(value for values in lying(folder).values() for value in values)


def test_several_processes_on_one_folder(tmp_path):
    folder = tmp_path / "s"
    started = [writer(folder, name, 12) for name in range(3)]
    said = [float(line) for process in started for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert everything(folder) == Counter(said)
    assert lying(folder)["best"] == sorted(sorted(said)[-3:], key=str)
    check(folder)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX; Windows ends processes differently")
def test_a_kill_at_any_moment_loses_nothing(tmp_path):
    folder, chance, said = tmp_path / "s", random.Random(0), Counter()
    for attempt in range(20):
        with writer(folder, attempt, 100_000) as process:
            assert process.stdout
            for _ in range(chance.randint(1, 4)):
                said[float(process.stdout.readline())] += 1
            time.sleep(chance.uniform(0, 0.02))
            os.kill(process.pid, signal.SIGKILL)
            said.update(float(line) for line in process.stdout.read().splitlines())
        values = (1000.0 + attempt,)
        outcome = Session(folder, read).add(SPEC, [picture(value) for value in values], TOP3)
        said.update(values)
        there = everything(folder)
        # Whatever was said to be in is there once; at most the picture that was being added is there besides.
        assert not said - there
        assert sum((there - said).values()) <= 1
        said = there
        assert outcome.seen == sum(there.values())
        assert lying(folder)["best"] == sorted(sorted(there)[-3:], key=str)
        check(folder)


def test_a_night_of_runs_stays_quick(tmp_path):
    session = Session(tmp_path / "s", read)
    session.add(SPEC, [picture(n / 7, str(n)) for n in range(1000)], TOP3)
    start = time.perf_counter()
    for n in range(5):
        session.add(SPEC, [picture(float(n), f"new {n}")], TOP3)
    assert (time.perf_counter() - start) / 5 < 0.5
