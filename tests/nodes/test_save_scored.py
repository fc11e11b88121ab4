import csv
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host
SAVE = "LatentCriticSaveScored"


@pytest.fixture
def output(comfyui_base, request):
    """A folder of this test inside ComfyUI's output folder, and its name for the pattern."""
    return comfyui_base / "output" / request.node.name, request.node.name


def test_the_file_knows_its_score_and_keeps_comfyuis_own_text(run_node, pictures, scorer, output):
    _, name = output
    widgets = {"filename_pattern": f"{name}/%rank%-%score%-%index%", "log": "none"}
    run = run_node(SAVE, widgets, images=[pictures([0.2, 0.8])], scorer=[scorer()])
    assert run.success, run.error
    files = [Path(file) for file in run.kept["files"]]
    assert [file.name for file in files] == ["002-20.00-000_00001_.png", "001-80.00-001_00001_.png"]
    assert run.kept["saved_count"] == [2]
    with Image.open(files[1]) as saved:
        assert saved.size == (40, 32)
        assert json.loads(saved.text["prompt"])["node"]["class_type"] == SAVE
        assert "brightness" in "".join(saved.text.values())
        assert "79.99" in "".join(saved.text.values()) or "80.0" in "".join(saved.text.values())
    assert run.ui["images"][0] == {"filename": files[0].name, "subfolder": name, "type": "output"}
    assert run.ui["files"] == [f"{name}/{file.name}" for file in files]


def test_nothing_is_ever_overwritten(run_node, pictures, scorer, output):
    folder, name = output
    folder.mkdir()
    (folder / "x_00001_.png").write_bytes(b"mine")
    (folder / "x_00003_.png").write_bytes(b"mine too")
    widgets = {"filename_pattern": f"{name}/x", "log": "none"}
    for level in (0.2, 0.3):
        run = run_node(SAVE, widgets, images=[pictures([level, level])], scorer=[scorer()])
        assert run.success, run.error
    assert (folder / "x_00001_.png").read_bytes() == b"mine"
    assert (folder / "x_00003_.png").read_bytes() == b"mine too"
    assert len(list(folder.iterdir())) == 6
    assert all(path.stat().st_size for path in folder.iterdir())


def test_a_name_that_another_program_takes_meanwhile_is_left_alone(pack, tmp_path):
    (tmp_path / "x_00007_.png").write_bytes(b"theirs")
    with pack("nodes._saving").new_file(tmp_path, "x", 7) as (temporary, final):
        temporary.write_bytes(b"ours")
    assert final.name == "x_00008_.png"
    assert final.read_bytes() == b"ours"
    assert (tmp_path / "x_00007_.png").read_bytes() == b"theirs"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_log_grows_line_by_line(run_node, pictures, scorer, output, form):
    folder, name = output
    widgets = {"filename_pattern": f"{name}/x", "log": form}
    for level in (0.2, 0.3):
        run = run_node(SAVE, widgets, images=[pictures([level, None])], scorer=[scorer()])
        assert run.success, run.error
    log = folder / f"latent_critic.{form}"
    text = log.read_text(encoding="utf-8")
    rows = (
        list(csv.DictReader(text.splitlines())) if form == "csv" else [json.loads(line) for line in text.splitlines()]
    )
    assert len(rows) == 4
    assert all("x_0000" in json.dumps(row) for row in rows)


def test_every_size_channel_count_and_broken_image_is_saved(run_node, scorer, output):
    _, name = output
    images = [torch.rand(1, 20, 30, 1), torch.rand(1, 16, 16, 4), torch.full((1, 8, 8, 3), float("nan"))]
    widgets = {"filename_pattern": f"{name}/%score%", "log": "none"}
    run = run_node(SAVE, widgets, images=images, scorer=[scorer()])
    assert run.success, run.error
    sizes = []
    for file in run.kept["files"]:
        with Image.open(file) as saved:
            saved.load()
            sizes.append(saved.size)
    assert sizes == [(30, 20), (16, 16), (8, 8)]
    assert Path(run.kept["files"][2]).name.startswith("unscored")


@pytest.mark.parametrize("pattern", ["../outside", "a/../../outside", "/elsewhere/outside", "%name%/x"])
def test_patterns_cannot_leave_the_output_folder(run_node, pictures, scorer, comfyui_base, pack, pattern):
    names = pack("nodes._scoring").with_names
    batch = names(scorer().score(list(pictures([0.2]).movedim(-1, 1))), ["../../outside.png"])
    run = run_node(SAVE, {"filename_pattern": pattern, "log": "none"}, images=[pictures([0.2])], scores=[batch])
    if run.success:
        assert Path(run.kept["files"][0]).is_relative_to(comfyui_base / "output")
    else:
        assert "inside ComfyUI's output folder" in run.error
    assert not list(comfyui_base.parent.glob("**/outside_0*"))


@pytest.mark.parametrize("call", ["fsync", "replace", "touch", "write"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(
    run_node, pictures, scorer, output, monkeypatch, call, pack
):
    folder, name = output
    widgets = {"filename_pattern": f"{name}/x", "log": "csv"}
    assert run_node(SAVE, widgets, images=[pictures([0.1])], scorer=[scorer()]).success
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif call == "write":
        monkeypatch.setattr(Image.Image, "save", full)
    else:
        monkeypatch.setattr(Path, call, full)
    run = run_node(SAVE, widgets, images=[pictures([0.2, 0.3])], scorer=[scorer()])
    monkeypatch.undo()
    assert not run.success
    assert "UnwritableFile" in run.error
    assert "No space left on device" in run.error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_at_the_log_keeps_the_picture_and_the_old_log(pack, tmp_path, monkeypatch):
    saving = pack("nodes._saving")
    log = tmp_path / "log.csv"
    saving.append(log, "1\n", "number\n")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(pack("core.errors").UnwritableFile, match="No space left"):
        saving.append(log, "2\n", "number\n")
    assert log.read_text(encoding="utf-8") == "number\n1\n"
