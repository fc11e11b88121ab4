"""Pictures stay on disk beyond a budget, and nothing that is drawn depends on it."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.images import load_image
from latent_critic.core.train.ldm import kept
from PIL import Image


@pytest.fixture
def reads(monkeypatch):
    """Names of the pictures that were decoded, in order."""
    names = []

    def reading(path):
        names.append(path.name)
        return load_image(path)

    monkeypatch.setattr(kept, "load_image", reading)
    return names


def test_listing_decodes_nothing(ldm, pictures, reads):
    found = ldm.pictures.load_collection(pictures, least=32)
    assert reads == []
    assert len(found.train) + len(found.held_back) == 12
    for picture in found.train:
        assert torch.equal(picture.pixels, (load_image(pictures / picture.name) * 255).round().to(torch.uint8))


def test_crops_are_the_same_with_any_memory(ldm, pictures, reads):
    one = 3 * 80 * 96
    drawn, counts = [], []
    for memory in (0, 4 * one + 1, 2**40):
        found = ldm.pictures.load_collection(pictures, least=32, most=64, memory=memory)
        crops = [ldm.pictures.random_crops(found.train, 8, 32, ldm.pictures.step_generator(0, s)) for s in range(6)]
        drawn.append(torch.cat([*crops, ldm.pictures.centre_views(found.held_back, 32)]))
        counts.append(len(reads))
        reads.clear()
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert counts[0] == 6 * 8 + len(found.held_back)  # again each time
    assert counts[0] > counts[1] > counts[2]
    assert counts[2] <= 12  # once each


def test_no_more_stays_than_the_budget(ldm, pictures, reads):
    one = 3 * 80 * 96
    found = ldm.pictures.load_collection(pictures, least=32, memory=4 * one + one // 2)
    for _ in range(2):
        for picture in found.train:
            assert picture.pixels.shape == (3, 80, 96)
    assert found.train[0].kept.free == one // 2
    again = len(found.train) - 4
    assert reads == [picture.name for picture in (*found.train, *found.train[-again:])]


def test_training_is_the_same_with_any_memory(ldm, request_for, tmp_path):
    for stage in ("autoencoder", "denoiser"):
        told = []
        for name, memory in (("none", 0.0), ("all", 2.0)):
            ldm.run.train_ldm(request_for(tmp_path / name, stage=stage, steps=20, batch=4, pool=4, memory=memory))
            rows = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
            told.append([{key: row.get(key) for key in ("stage", "step", "loss", "psnr", "psnr_mean")} for row in rows])
        digests = [sha256((tmp_path / name / f"{stage}.safetensors").read_bytes()) for name in ("none", "all")]
        assert told[0] == told[1]
        assert any(row["loss"] for row in told[0])
        assert digests[0].hexdigest() == digests[1].hexdigest()


def test_a_damaged_picture_is_named(ldm, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    for place in range(4):
        Image.fromarray(noise).save(tmp_path / f"{place}.png")
    listed = [{"file": f"{place}.png", "held_back": place == 0} for place in range(4)]
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": listed}))
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    found = ldm.pictures.load_collection(tmp_path, least=32)
    with pytest.raises(UnreadableFile, match=r"2\.png"):
        ldm.pictures.random_crops(found.train, 32, 32, ldm.pictures.step_generator(0, 0))
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableFile, match=r"2\.png"):
        ldm.pictures.load_collection(tmp_path, least=32)


def test_sizes_are_those_after_shrinking(ldm, tmp_path):
    for name, size in (("tall", (40, 400)), ("small", (30, 90)), ("wide", (200, 100))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (90, 60)).save(tmp_path / "turned.jpg", exif=turned)
    rows = [{"file": path.name, "held_back": path.name == "tall.png"} for path in sorted(tmp_path.iterdir())]
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": rows}))
    found = ldm.pictures.load_collection(tmp_path, least=36, most=50)
    shapes = {picture.name: tuple(picture.pixels.shape[1:]) for picture in (*found.train, *found.held_back)}
    assert shapes == {"tall.png": (400, 40), "wide.png": (50, 100), "turned.jpg": (75, 50)}


def test_a_negative_memory_is_refused(request_for, tmp_path, pictures, ldm):
    for memory in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="0 GB"):
            request_for(tmp_path, memory=memory)
    with pytest.raises(BadInput, match="0 GB"):
        ldm.pictures.load_collection(pictures, least=32, memory=-1)
