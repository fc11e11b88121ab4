from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.host
LOAD = "LatentCriticLoadFolder"


@pytest.fixture
def folder(comfyui_base, request):
    """A folder of three good pictures and two bad ones in ComfyUI's input folder."""
    folder = comfyui_base / "input" / request.node.name
    (folder / "sub").mkdir(parents=True)
    for number, size in ((10, (30, 20)), (2, (16, 24))):
        Image.new("RGB", size, (10 * number, 0, 0)).save(folder / f"image{number}.png")
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(folder / "sub/grey16.png")
    whole = (folder / "image10.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "not.jpg").write_text("no picture")
    return folder


def test_pictures_come_in_natural_order_and_broken_files_are_named(run_node, folder):
    run = run_node(LOAD, {"folder": folder.name, "start": 0, "limit": 100})
    assert run.success, run.error
    assert run.kept["names"] == ["image2.png", "image10.png", str(Path("sub", "grey16.png"))]
    assert [tuple(image.shape) for image in run.kept["images"]] == [(1, 24, 16, 3), (1, 20, 30, 3), (1, 9, 9, 3)]
    assert float(run.kept["images"][2].mean()) == pytest.approx(40000 / 65535, abs=1e-4)
    assert run.kept["count"] == [3]
    assert {line.split(":")[0] for line in run.kept["unreadable"][0].splitlines()} == {"cut.png", "not.jpg"}


def test_a_part_of_a_folder_by_its_full_path(run_node, folder):
    run = run_node(LOAD, {"folder": str(folder), "start": 1, "limit": 2})
    assert run.kept["names"] == ["image2.png"] or run.kept["names"] == ["image2.png", "image10.png"]


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"folder": "no such folder"}, "no such file or folder"),
        ({"start": 99}, "a start below 5"),
    ],
)
def test_bad_input(run_node, folder, widgets, message):
    run = run_node(LOAD, {"folder": folder.name, "start": 0, "limit": 9, **widgets})
    assert not run.success
    assert message in run.error


def test_a_folder_without_a_picture(run_node, comfyui_base):
    (comfyui_base / "input/empty").mkdir()
    run = run_node(LOAD, {"folder": "empty", "start": 0, "limit": 9})
    assert "BadInput" in run.error
    (comfyui_base / "input/empty/broken.png").write_text("no picture")
    run = run_node(LOAD, {"folder": "empty", "start": 0, "limit": 9})
    assert "UnreadableFile" in run.error


def test_a_new_file_is_noticed_and_nothing_else_runs_again(comfyui, folder):
    fingerprint = comfyui.NODE_CLASS_MAPPINGS[LOAD].fingerprint_inputs
    first = fingerprint(folder=folder.name, start=0, limit=9)
    assert fingerprint(folder=folder.name, start=0, limit=9) == first
    Image.new("RGB", (8, 8)).save(folder / "new.png")
    assert fingerprint(folder=folder.name, start=0, limit=9) != first
    assert fingerprint(folder=None) == fingerprint(folder=None)
    assert isinstance(fingerprint(folder="no such folder"), str)


def test_a_link_to_nowhere_is_named_and_stops_nothing(comfyui, run_node, folder):
    (folder / "ghost.png").symlink_to(folder / "nowhere.png")
    fingerprint = comfyui.NODE_CLASS_MAPPINGS[LOAD].fingerprint_inputs
    first = fingerprint(folder=folder.name, start=0, limit=9)
    run = run_node(LOAD, {"folder": folder.name, "start": 0, "limit": 9})
    assert run.success, run.error
    assert run.kept["count"] == [3]
    assert "ghost.png" in run.kept["unreadable"][0]
    Image.new("RGB", (8, 8)).save(folder / "nowhere.png")
    assert fingerprint(folder=folder.name, start=0, limit=9) != first


@pytest.mark.parametrize("given", ["a\0b", "~nobody knows them/x"])
def test_what_is_no_path_is_bad_input(comfyui, run_node, given):
    run = run_node(LOAD, {"folder": given, "start": 0, "limit": 9})
    assert "BadInput" in run.error
    assert "path of a folder" in comfyui.NODE_CLASS_MAPPINGS[LOAD].fingerprint_inputs(folder=given)
