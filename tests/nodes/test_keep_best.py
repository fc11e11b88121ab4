"""Keep Best of Session in the real executor: one image a run, all night, through restarts, cancels and full disks."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.host
KEEP = "LatentCriticKeepBest"


@pytest.fixture
def folder(comfyui_base, request):
    """This test's session folder inside ComfyUI's output folder."""
    return comfyui_base / "output" / "sessions" / request.node.name


@pytest.fixture
def night(run_node, pictures, scorer, folder):
    """One queue run: `night(0.3)` lets images of these brightnesses join, `top_k=2` by default."""

    def run(*levels, expect=True, **given):
        widgets = {"session": f"sessions/{folder.name}", "top_k": 2, "top_percent": 0.0}
        widgets |= {name: given.pop(name) for name in list(given) if name in widgets}
        images = [pictures(levels)] if levels else given.pop("images")
        found = run_node(KEEP, widgets, images=images, **{"scorer": [scorer()], **given})
        assert found.success == expect, found.error
        return found

    return run


def scores_in(folder):
    """Side → the scores that the saved files carry, rounded."""
    found = {}
    for side in ("best", "rest"):
        found[side] = []
        for path in sorted((folder / side).iterdir()):
            with Image.open(path) as saved:
                saved.load()
                score = json.loads(saved.text["latent_critic"])["score"]
            found[side].append(None if score is None else round(score))
    return found


def test_one_image_a_run(night, folder):
    for level, best, kept in ((0.3, [30], True), (0.1, [30, 10], True), (0.2, [30, 20], True), (0.05, [30, 20], False)):
        run = night(level)
        assert run.kept["best_count"] == [len(best)]
        assert run.kept["any_best"] == [kept]
        assert ("best" in run.kept, "rest" in run.kept) == (kept, not kept)
        assert [round(row["score"]) for row in run.ui["session"][0]["best"]] == best
        assert not run.blocked.get("rest" if kept else "best")  # an ordinary night shows no errors
    assert run.kept["seen_count"] == [4]
    assert scores_in(folder) == {"best": [20, 30], "rest": [5, 10]}
    assert [Path(path).parent.name for path in run.kept["best_files"]] == ["best", "best"]
    assert [Path(path).name[:2] for path in run.kept["best_files"]] == ["30", "20"]
    assert "Session" in run.kept["report"][0]
    assert "1 of 1 images scored" in run.kept["report"][0]
    assert "rank 4 of 4" in run.kept["report"][0]
    shown = run.ui["images"][0]
    assert shown["type"] == "output"
    assert (folder.parents[1] / shown["subfolder"] / shown["filename"]).is_file()
    json.dumps(run.ui)


@pytest.mark.usefixtures("run_node")  # brings TestGive
def test_the_same_prompt_queued_again_runs_again_and_counts_once(comfyui, run_workflow, pictures, scorer, folder):
    given = {"images": [pictures([0.4])], "scorer": [scorer()]}
    comfyui.NODE_CLASS_MAPPINGS["TestGive"].values.update(given)
    prompt = {name: {"class_type": "TestGive", "inputs": {"key": name}} for name in given}
    inputs = {"session": f"sessions/{folder.name}", "top_k": 1, "top_percent": 0.0}
    prompt["node"] = {"class_type": KEEP, "inputs": {**inputs, **{name: [name, 0] for name in given}}}
    for repeated in (0, 1, 1):
        run = run_workflow(copy.deepcopy(prompt))  # the executor writes into what it is given
        assert run.success, run.error
        assert run.cached == {"images", "scorer"} if repeated else not run.cached
        assert run.outputs["node"]["session"][0]["repeated"] == repeated
    assert scores_in(folder) == {"best": [40], "rest": []}


def test_the_files_know_their_score_and_keep_comfyuis_own_text(night, folder):
    night(0.2, None, seeds=[2**64 - 1])
    (best,) = (folder / "best").iterdir()
    with Image.open(best) as saved:
        assert saved.size == (40, 32)
        assert json.loads(saved.text["prompt"])["node"]["class_type"] == KEEP
        said = json.loads(saved.text["latent_critic"])
    assert (round(said["score"]), said["seed"], said["spec"]["name"]) == (20, 2**64 - 1, "brightness")
    (rest,) = (folder / "rest").iterdir()
    assert rest.name.startswith("unscored")
    with Image.open(rest) as saved:
        assert "NaN" in json.loads(saved.text["latent_critic"])["reason"]
        assert saved.getchannel("A").getextrema() == (0, 0)  # NaN pixels are transparent, never black


def test_a_picture_keeps_its_alpha_and_is_transparent_where_it_is_broken(night, folder, pictures):
    alpha = torch.linspace(0, 1, 40).expand(1, 32, 40).clone()
    image = torch.cat([pictures([0.5]), alpha[..., None]], dim=-1)
    night(images=[image])
    broken = image.clone()
    broken[0, 3, 39, 1] = float("nan")
    night(images=[broken])
    expected = alpha[0].mul(255).round().to(torch.uint8)
    for side in ("best", "rest"):
        (path,) = (folder / side).iterdir()
        with Image.open(path) as saved:
            assert saved.mode == "RGBA"
            assert saved.getpixel((0, 0))[:3] != (0, 0, 0)  # what lies under a transparent pixel is kept as well
            assert saved.getchannel("A").tobytes() == expected.numpy().tobytes()
        expected[3, 39] = 0


def test_a_demoted_file_is_moved_bit_for_bit(night, folder):
    night(0.2, top_k=1)
    (first,) = (folder / "best").iterdir()
    content = first.read_bytes()
    night(0.3, top_k=1)
    assert (folder / "rest" / first.name).read_bytes() == content


def test_a_restart_and_a_lost_index_change_nothing(night, folder):
    night(0.1, 0.5, None, 0.3)
    before = scores_in(folder)
    (folder / "session.sqlite").unlink()
    run = night(0.05)
    after = scores_in(folder)
    assert run.kept["seen_count"] == [5]
    assert after["best"] == before["best"] == [30, 50]
    assert sorted(after["rest"], key=str) == [10, 5, None]
    assert run.ui["session"][0]["unscored"] == 1


def test_top_percent(night, folder):
    for number in range(8):
        night(0.9 - 0.1 * number, top_k=0, top_percent=25.0)
    assert scores_in(folder)["best"] == [80, 90]


def test_latents_masks_and_prompts_go_the_same_way(night):
    latents = [{"samples": torch.arange(3.0).reshape(3, 1, 1, 1)}]
    run = night(0.1, 0.9, 0.5, latents=latents, prompts=["a", "b", "c"], masks=[torch.zeros(3, 4, 4)])
    assert run.kept["best_prompts"] == ["b", "c"]
    assert run.kept["best_latents"][0]["batch_index"] == [1, 2]
    assert run.kept["rest_latents"][0]["samples"].flatten().tolist() == [0.0]
    assert len(run.kept["best_masks"][0]) == 2


@pytest.mark.parametrize("name", ["", ".", "../out", "/elsewhere", "a/../..", "a\0b"])
def test_a_session_lies_inside_the_output_folder(night, comfyui_base, name):
    assert "name for the session" in night(0.2, session=name, expect=False).error
    assert not (comfyui_base / "output" / "best").exists()


def test_wrong_settings_are_refused_before_anything_is_scored(night, scorer, folder):
    judge = scorer()
    assert "top_k or top_percent" in night(0.2, top_k=0, scorer=[judge], expect=False).error
    assert judge.calls == []
    night(0.2)
    assert "new session" in night(0.2, scorer=[scorer(settings={"a": 1})], expect=False).error
    assert scores_in(folder) == {"best": [20], "rest": []}


def test_cancel_between_two_images_keeps_the_first(night, folder, monkeypatch, pack):
    from comfy import model_management

    session = pack("nodes._session")
    plain = session.write_png

    def write_png(*arguments):
        plain(*arguments)
        model_management.interrupt_current_processing(True)

    with monkeypatch.context() as patch:
        patch.setattr(session, "write_png", write_png)
        run = night(0.1, 0.2, 0.3, expect=False)
    model_management.interrupt_current_processing(False)
    assert [kind for kind, _ in run.messages if "interrupt" in kind] == ["execution_interrupted"]
    assert night(0.1, 0.2, 0.3).ui["session"][0]["repeated"] == 1
    assert scores_in(folder) == {"best": [20, 30], "rest": [10]}


def test_a_full_disk_is_a_clear_error_and_leaves_whole_files(night, folder, monkeypatch):
    night(0.1)

    def full(_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        run = night(0.2, 0.3, expect=False)
    assert "UnwritableFile" in run.error
    assert scores_in(folder) == {"best": [10], "rest": []}
    night(0.2, 0.3)
    assert scores_in(folder) == {"best": [20, 30], "rest": [10]}


def test_pictures_of_others_are_left_alone(night, folder):
    night(0.2)
    Image.new("RGB", (8, 8)).save(folder / "best" / "holiday.png")
    (folder / "rest" / "broken.png").write_bytes(b"no picture")
    assert night(0.3).kept["seen_count"] == [2]
    assert (folder / "best" / "holiday.png").is_file()
    assert (folder / "rest" / "broken.png").read_bytes() == b"no picture"
