"""Kept restorations: the same values, nothing restored twice, bounded, and sound after a kill."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
from latent_critic.core.errors import BadInput, UnwritableFile
from latent_critic.core.nets.restorer import RestorerShape, build
from latent_critic.core.restoration.cache import CachedRestorer, Entry, RestorationCache
from latent_critic.core.restoration.sr3 import Sr3Options, Sr3Restorer

LOCAL = RestorerShape(4, (1, 2), 1, (), 32, 0.0, 0, False, 1, "clean")


class Counting:
    """A real restorer that counts its pictures; `opaque` says that its identity cannot be read."""

    name = "sr3"

    def __init__(self, seed=0, opaque=False):
        self.inner, self.seen, self.opaque = Sr3Restorer(build(LOCAL), Sr3Options(4, 0.0, seed)), 0, opaque

    @property
    def identity(self):
        return {**self.inner.identity, **({"opaque": "patches"} if self.opaque else {})}

    def restore(self, images, *, watch=None):
        self.seen += len(images)
        return self.inner.restore(images, watch=watch)


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_the_cache_changes_no_value(pictures, tmp_path):
    counting = Counting()
    cached = CachedRestorer(counting, RestorationCache(tmp_path))
    first = cached.restore(pictures)
    plain = counting.inner.restore(pictures)
    assert float((first.images - plain.images).abs().max()) <= 0.5 / 255 + 1e-6
    again = cached.restore(pictures)
    assert counting.seen == 3
    assert torch.equal(again.images, first.images)
    assert (first.calls, again.calls) == ((4, 4, 4), (0, 0, 0))
    assert again.noise_levels == first.noise_levels == plain.noise_levels
    mixed = cached.restore(torch.stack([pictures[2], 1 - pictures[0], pictures[1]]))
    assert counting.seen == 4
    assert torch.equal(mixed.images[[0, 2]], first.images[[2, 1]])
    assert mixed.calls == (0, 4, 0)
    other_process = CachedRestorer(counting, RestorationCache(tmp_path)).restore(pictures)
    assert counting.seen == 4
    assert torch.equal(other_process.images, first.images)


def test_another_restorer_has_its_own(pictures, tmp_path):
    cache = RestorationCache(tmp_path)
    CachedRestorer(Counting(), cache).restore(pictures)
    other = Counting(seed=1)
    CachedRestorer(other, cache).restore(pictures)
    assert other.seen == 3


def test_what_cannot_be_told_apart_is_not_kept(pictures, tmp_path):
    opaque = Counting(opaque=True)
    cached = CachedRestorer(opaque, RestorationCache(tmp_path))
    assert torch.equal(cached.restore(pictures).images, cached.restore(pictures).images)
    assert opaque.seen == 6
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_picture_with_a_reason_is_not_kept(pictures, tmp_path):
    broken = pictures.clone()
    broken[1] = float("nan")
    counting = Counting()
    cached = CachedRestorer(counting, RestorationCache(tmp_path))
    assert cached.restore(broken).reasons[1] is not None
    found = cached.restore(broken)
    assert counting.seen == 4
    assert [reason is None for reason in found.reasons] == [True, False, True]


@pytest.mark.parametrize("damage", [b"", b"no safetensors at all", None])
def test_a_damaged_file_counts_as_absent(pictures, tmp_path, damage):
    counting = Counting()
    cached = CachedRestorer(counting, RestorationCache(tmp_path))
    first = cached.restore(pictures[:1])
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert torch.equal(cached.restore(pictures[:1]).images, first.images)
    assert counting.seen == 2
    cached.restore(pictures[:1])
    assert counting.seen == 2


def test_it_stays_below_its_limit_and_drops_the_longest_unused(tmp_path):
    entry = Entry(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), (0.0, 0.1, 0.2))
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    probe = RestorationCache(tmp_path / "probe")
    place = probe.path(images[0], {})
    probe.write(place, entry)
    size = place.stat().st_size
    cache = RestorationCache(tmp_path / "cache", limit=int(4.5 * size))
    paths = [cache.path(image, {"restorer": "a"}) for image in images]
    for age, path in enumerate(paths[:4]):
        cache.write(path, entry)
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.read(paths[0]) is not None  # used now
    cache.write(paths[4], entry)
    held = {path for path in paths if path.exists()}
    assert sum(path.stat().st_size for path in held) <= 4.5 * size
    assert {paths[0], paths[4]} <= held
    assert paths[1] not in held


def test_a_file_in_use_stays_and_harms_nobody(tmp_path, monkeypatch):
    """Windows does not delete what another process reads: the next one goes in its place."""
    entry = Entry(torch.zeros(3, 3, 16, 16, dtype=torch.uint8), (0.0, 0.1, 0.2))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cache = RestorationCache(tmp_path, limit=7000)  # two files and a half
    paths = [cache.path(image, {}) for image in images]
    unlink = pathlib.Path.unlink

    def in_use(self, missing_ok=False):
        if self == paths[0]:
            raise PermissionError(13, "in use")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", in_use)
    for age, path in enumerate(paths[:3]):
        cache.write(path, entry)
        os.utime(path, (1000 + age, 1000 + age))
    assert [path.exists() for path in paths[:3]] == [True, False, True]
    monkeypatch.undo()
    cache.write(paths[3], entry)
    assert [path.exists() for path in paths] == [False, False, True, True]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_writer_leaves_whole_files(pictures, tmp_path):
    """Killed in the midst of writing: what is there can be read, and the next writer clears the rest away."""
    script = (
        "import sys, torch\n"
        "from latent_critic.core.restoration.cache import Entry, RestorationCache\n"
        "cache = RestorationCache(sys.argv[1])\n"
        "for seed in range(10**6):\n"
        "    image = torch.full((3, 8, 8), seed / 1e6)\n"
        "    cache.write(cache.path(image, {}), Entry(torch.zeros(3, 3, 256, 256, dtype=torch.uint8), (0, 0, 0)))\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("[!.]*.safetensors"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    cache = RestorationCache(tmp_path)
    whole = list(tmp_path.rglob("[!.]*.safetensors"))  # what was being written begins with a dot
    assert len(whole) >= 20
    assert all(cache.read(path) is not None for path in whole)
    CachedRestorer(Counting(), cache).restore(pictures)
    assert not list(tmp_path.rglob(".*.tmp*"))


def test_a_folder_that_takes_no_files_is_said(pictures, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UnwritableFile):
        CachedRestorer(Counting(), RestorationCache(blocked)).restore(pictures)
    with pytest.raises(BadInput):
        RestorationCache(tmp_path, limit=0)


def test_work_goes_on_without_a_cache_where_none_is_needed(pictures, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cached = CachedRestorer(Counting(), RestorationCache(blocked), needed=False)
    found = cached.restore(pictures)
    assert found.calls == cached.restore(pictures).calls == (4, 4, 4)
    assert torch.equal(
        found.images, CachedRestorer(Counting(), RestorationCache(tmp_path / "x")).restore(pictures).images
    )
    assert caplog.text.count("not kept from here on") == 1
