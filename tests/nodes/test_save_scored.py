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
    assert ["x_0000" in json.dumps(row) for row in rows] == [True, False, True, False]
    assert all("NaN" in json.dumps(row) for row in (rows[1], rows[3]))


def test_every_size_and_channel_count_is_saved(run_node, scorer, output):
    _, name = output
    images = [torch.rand(1, 20, 30, 1), torch.rand(1, 16, 16, 4), torch.rand(1, 4, 4, 3)]
    widgets = {"filename_pattern": f"{name}/%score%", "log": "none"}
    run = run_node(SAVE, widgets, images=images, scorer=[scorer()])
    assert run.success, run.error
    sizes = []
    for file in run.kept["files"]:
        with Image.open(file) as saved:
            saved.load()
            sizes.append(saved.size)
    assert sizes == [(30, 20), (16, 16), (4, 4)]
    assert Path(run.kept["files"][2]).name.startswith("unscored")


def test_a_picture_with_nan_is_never_saved_black_but_left_out_and_named(run_node, pictures, scorer, output):
    folder, name = output
    widgets = {"filename_pattern": f"{name}/x", "log": "none"}
    run = run_node(SAVE, widgets, images=[pictures([0.2, None, 0.4])], scorer=[scorer()])
    assert run.success, run.error
    assert run.kept["saved_count"] == [2]
    assert len(list(folder.glob("*.png"))) == 2
    assert "Image 1 was not saved: it holds NaN" in run.ui["text"][0]
    run = run_node(SAVE, widgets, images=[pictures([None])], scorer=[scorer()])
    assert run.success, run.error
    assert "No image was saved" in run.blocked["files"]
    assert len(list(folder.glob("*.png"))) == 2


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_log_that_cannot_be_written_costs_no_picture(run_node, pictures, scorer, output, form, caplog):
    folder, name = output
    (folder / f"latent_critic.{form}").mkdir(parents=True)
    widgets = {"filename_pattern": f"{name}/x", "log": form}
    run = run_node(SAVE, widgets, images=[pictures([0.2, 0.4, 0.6])], scorer=[scorer()])
    assert run.success, run.error
    assert len(run.kept["files"]) == len(list(folder.glob("*.png"))) == 3
    assert f"The pictures are saved, but the log in {folder} is not" in run.ui["text"][0]
    assert "the log in" in caplog.text


def test_what_was_saved_before_the_disk_filled_up_is_logged(run_node, pictures, scorer, output, monkeypatch, pack):
    folder, name = output
    save = Image.Image.save
    calls = []

    def once(self, *given, **named):
        calls.append(self)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(self, *given, **named)

    monkeypatch.setattr(Image.Image, "save", once)
    widgets = {"filename_pattern": f"{name}/x", "log": "csv"}
    run = run_node(SAVE, widgets, images=[pictures([0.2, 0.4, 0.6])], scorer=[scorer()])
    monkeypatch.undo()
    assert "UnwritableFile" in run.error
    assert len(list(folder.glob("*.png"))) == 1
    assert len((folder / "latent_critic.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_a_last_line_without_an_end_does_not_swallow_the_next(pack, tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("number\n1", encoding="utf-8")
    pack("nodes._saving").append(log, "2\n", "number\n")
    assert log.read_text(encoding="utf-8") == "number\n1\n2\n"


def test_a_link_in_the_output_folder_may_lead_to_another_disk(run_node, pictures, scorer, comfyui_base, tmp_path):
    (comfyui_base / "output" / "linked away").symlink_to(tmp_path)
    widgets = {"filename_pattern": "linked away/x", "log": "csv"}
    run = run_node(SAVE, widgets, images=[pictures([0.2])], scorer=[scorer()])
    assert run.success, run.error
    assert (tmp_path / "x_00001_.png").is_file()


@pytest.mark.parametrize(
    ("values", "scale", "expected"),
    [
        ((7.5, 81.25, 100.0), (0.0, 100.0), ["07.50", "81.25", "100.00"]),
        ((7.5,), (0.0, 10.0), ["7.50"]),
        ((0.1134, -0.1134, -0.002834, 1.5), None, ["+0.1134", "-0.1134", "-0.002834", "+1.500"]),
        ((0.51234,), (0.0, 1.0), ["+0.5123"]),
    ],
)
def test_scores_in_file_names_are_told_apart(pack, values, scale, expected):
    expand, score = pack("nodes._saving").expand, pack("core.records").Score
    assert [expand("%score%", score(value, 0), 1, scale) for value in values] == expected


def test_names_that_are_no_file_names_say_so(run_node, pictures, scorer):
    for nothing in ("", ".", "./"):
        run = run_node(SAVE, {"filename_pattern": nothing, "log": "none"}, images=[pictures([0.2])], scorer=[scorer()])
        assert "Write for example: LatentCritic/%score%" in run.error
    run = run_node(SAVE, {"filename_pattern": "a\0b", "log": "none"}, images=[pictures([0.2])], scorer=[scorer()])
    assert "BadInput" in run.error
    assert "NUL" in run.error
    run = run_node(SAVE, {"filename_pattern": "x" * 300, "log": "none"}, images=[pictures([0.2])], scorer=[scorer()])
    assert "Use a shorter" in run.error
    assert "Free some space" not in run.error


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
