"""The training pictures made again from their originals."""

import json
from hashlib import sha256

import numpy as np
import pytest
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.nets import critic_ldm
from PIL import Image


@pytest.fixture
def gather(diffusers):
    from latent_critic.core.train.ldm.gather import gather

    return gather


@pytest.fixture
def original(tmp_path):
    """A source with one animation of three frames, 900 × 1500: black, grey, white."""
    folder = tmp_path / "source" / "deep"
    folder.mkdir(parents=True)
    frames = [Image.fromarray(np.full((1500, 900, 3), grey, np.uint8)) for grey in (0, 128, 255)]
    frames[0].save(folder / "three.webp", save_all=True, append_images=frames[1:], lossless=True)
    return folder / "three.webp"


@pytest.fixture
def manifest(tmp_path, original):
    digest = sha256(original.read_bytes()).hexdigest()
    row = {"source": "free", "path": "deep/three.webp", "sha256": digest, "content": "", "held_back": False}
    rows = [row | {"file": f"frame_{frame}.png", "frame": frame} for frame in range(3)]
    (tmp_path / "manifest.json").write_text(json.dumps({"pictures": rows}))
    return tmp_path / "manifest.json"


def test_frames_are_taken_and_made_smaller(gather, manifest, tmp_path):
    assert gather({"free": tmp_path / "source"}, tmp_path / "out", manifest) == 3
    for frame, grey in enumerate((0, 128, 255)):
        with Image.open(tmp_path / "out" / f"frame_{frame}.png") as picture:
            assert picture.size == (614, 1024)
            assert picture.getpixel((300, 500)) == (grey,) * 3
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == json.loads(manifest.read_text())


def test_another_original_is_refused(gather, manifest, original, tmp_path):
    original.write_bytes(original.read_bytes() + b"!")
    with pytest.raises(UnreadableFile, match="another file"):
        gather({"free": tmp_path / "source"}, tmp_path / "out", manifest)


def test_a_source_without_a_folder_is_named(gather, manifest, tmp_path):
    with pytest.raises(BadInput, match="free"):
        gather({}, tmp_path / "out", manifest)


def test_the_shipped_manifest_is_whole():
    rows = json.loads((critic_ldm.SHIPPED / "manifest.json").read_text())["pictures"]
    sources = json.loads((critic_ldm.SHIPPED / "manifest.json").read_text())["sources"]
    assert len({row["file"] for row in rows}) == len(rows)
    assert {row["source"] for row in rows} == set(sources)
    assert all(row["licence"] and len(row["sha256"]) == 64 for row in rows)
    assert 20 < sum(row["held_back"] for row in rows) < len(rows) / 5
