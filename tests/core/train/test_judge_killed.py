"""`train judge` killed for real, many times and at every write: it goes on, ends the same, no file is ever torn."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from latent_critic.core.errors import UnreadableFile
from latent_critic.core.files import sweep, whole_file
from latent_critic.core.nets.judge_file import read
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

PICTURES, SHARD = 32, 8
#: Imports once, then forks one run per order read from standard input: "seconds S" kills it after S seconds, "write N"
#: before its Nth file is renamed into place, "run" lets it end. Answers with the child's wait status and duration.
DRIVER = """
    import os, signal, sys, time
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from latent_critic.core.data.loaders import rated_csv
    from latent_critic.core.train import content, judge
    from latent_critic.core.train.judge import train_judge
    from latent_critic.core.train.judge_request import JudgeRequest
    from latent_critic.core.train.judge_head import HeadSettings
    import sklearn.cluster, sklearn.decomposition

    list_file, folder, shard = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def run(writes):
        real, done = os.fsync, 0
        def fsync(handle):
            nonlocal done
            done += 1
            if done == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            real(handle)
        os.fsync = fsync
        settings = HeadSettings(members=1, width=8, epochs=2, batch=8)
        train_judge(JudgeRequest(rated_csv(list_file), folder / "mine.safetensors", folder / "cache",
                                 settings=settings, shard=shard, per_group=4))

    for line in sys.stdin:
        order, _, number = line.strip().partition(" ")
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            run(int(number) if order == "write" else 0)
            os._exit(0)
        if order == "seconds":
            time.sleep(float(number))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        print(status, time.monotonic() - start, flush=True)
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX systems")]


@pytest.fixture(scope="module")
def list_file(tmp_path_factory):
    """Small noisy pictures, rated by their noise."""
    folder = tmp_path_factory.mktemp("rated")
    draw = np.random.default_rng(0)
    rows = []
    for place in range(PICTURES):
        noise = draw.uniform(0, 90)
        pixels = (128 + draw.normal(0, noise, (48, 40, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
        rows.append(f"{place}.png,{100 - noise:.2f}")
    (folder / "list.csv").write_text("\n".join(rows))
    return folder / "list.csv"


class Driver:
    """The process that forks the runs, one order at a time."""

    def __init__(self, list_file, folder):
        command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(list_file), str(folder), str(SHARD)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder)

    def __call__(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        status, seconds = self.process.stdout.readline().split()
        return os.waitstatus_to_exitcode(int(status)), float(seconds)

    def close(self):
        self.process.stdin.close()
        code = self.process.wait(60)
        self.process.stdout.close()
        assert code == 0


@pytest.fixture
def driver(list_file, tmp_path):
    found = Driver(list_file, tmp_path)
    yield found
    found.close()


def whole_files(folder):
    """Every file under its own name is whole: opened, and each tensor read."""
    shards = sorted(path for path in folder.glob("cache/*") if not path.name.startswith("."))
    for path in shards:
        with safe_open(path, framework="np") as handle:
            assert all(handle.get_tensor(name).size for name in handle.keys())  # noqa: SIM118
    if (folder / "mine.safetensors").exists():
        read(folder / "mine.safetensors")
    return [path.name for path in shards]


def test_killed_at_any_moment_it_goes_on_and_ends_the_same(driver, tmp_path):
    draw, seen, kills = np.random.default_rng(1), [], 0
    while kills < 6:
        code, _ = driver(f"seconds {draw.uniform(0.05, 2.5):.3f}")
        found = whole_files(tmp_path)
        assert set(seen) <= set(found), "a finished shard was lost"
        seen = found
        kills += code == -9
        if code == 0:  # it came to its end before the kill: begin anew
            (tmp_path / "mine.safetensors").unlink()
            for path in tmp_path.glob("cache/*"):
                path.unlink()
            seen = []
    assert driver("run")[0] == 0
    killed = load_file(tmp_path / "mine.safetensors")
    assert len(whole_files(tmp_path)) == PICTURES // SHARD
    assert not [*tmp_path.glob(".*.tmp*"), *tmp_path.glob("cache/.*.tmp*")], "what the kills left was removed"
    for path in (*tmp_path.glob("cache/*"), tmp_path / "mine.safetensors"):
        path.unlink()
    assert driver("run")[0] == 0
    whole = load_file(tmp_path / "mine.safetensors")
    assert all((whole[name] - killed[name]).abs().max() < 1e-3 for name in whole)


def test_killed_before_every_single_rename(driver, tmp_path):
    """The worst moment: a file is written but not yet in its place. Each run gets one shard further."""
    for done in range(PICTURES // SHARD):
        assert driver("write 2")[0] == -9  # one file more, then killed at the next
        assert len(whole_files(tmp_path)) == done + 1
        assert not (tmp_path / "mine.safetensors").exists()
        if done == PICTURES // SHARD - 2:
            break
    assert driver("write 2")[0] == -9, "the last shard is there, the judge itself is not"
    assert len(whole_files(tmp_path)) == PICTURES // SHARD
    assert not (tmp_path / "mine.safetensors").exists()
    assert driver("write 1")[0] == -9
    assert not (tmp_path / "mine.safetensors").exists()
    assert driver("run")[0] == 0
    read(tmp_path / "mine.safetensors")
    assert not list(tmp_path.glob(".*.tmp*"))


def test_a_kill_keeps_the_older_judge(driver, tmp_path):
    assert driver("run")[0] == 0
    before = (tmp_path / "mine.safetensors").read_bytes()
    assert driver("write 1")[0] == -9
    assert (tmp_path / "mine.safetensors").read_bytes() == before
    (tmp_path / "mine.safetensors").write_bytes(before[: len(before) // 2])
    with pytest.raises(UnreadableFile):
        read(tmp_path / "mine.safetensors")


def test_leftovers_of_running_writers_stay(tmp_path):
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
        gone = tmp_path / ".a.txt.999999999.tmp.txt"
        gone.touch()
        sweep(tmp_path)
        assert temporary.exists()
        assert not gone.exists()
    assert (tmp_path / "a.txt").read_text() == "x"
