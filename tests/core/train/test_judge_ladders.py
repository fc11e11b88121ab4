"""Ladders made into a folder: stopped and gone on, through a real tiny model, and by the command."""

import json
import shutil

import numpy as np
import pytest
import torch
from latent_critic.core.data.ladder import read_ladders
from latent_critic.core.data.ladder_generation import generation_kinds
from latent_critic.core.data.ladder_groups import read_groups, write_groups
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.images import picture_size
from latent_critic.core.train.features import content_of
from latent_critic.core.train.judge_ladders import LadderRequest, make_ladders
from PIL import Image


@pytest.fixture(scope="module")
def contents(pictures):
    return tuple(sorted(pictures.iterdir()))[:3]


@pytest.fixture(scope="module")
def backbone(diffusers, tiny_folder):
    from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
    from latent_critic.core.hosts.diffusers.loading import load_pipeline

    return DiffusersBackbone(load_pipeline(str(tiny_folder)))


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_run_goes_on_and_ends_the_same(contents, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    asked = LadderRequest(contents, tmp_path / "a", ("camera", "scale"), kinds=2, levels=(2, 4), side=64)
    with pytest.raises(KeyboardInterrupt):
        make_ladders(asked, watch=stop)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    made = make_ladders(asked)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(made) == len(set(made)) == 3 * (1 + 2 * 2 * 2)
    assert {path.name for path in made} == {path.name for path in (tmp_path / "a").iterdir()}
    make_ladders(LadderRequest(contents, tmp_path / "b", ("camera", "scale"), kinds=2, levels=(2, 4), side=64))
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert all(max(picture_size(path)) <= 64 for path in made)
    assert len(read_ladders(tmp_path / "a")) == 3 * 2 * 2


def test_kinds_of_a_content_do_not_depend_on_other_families(contents, tmp_path):
    make_ladders(LadderRequest(contents, tmp_path / "a", ("camera",), kinds=2, levels=(5,), side=64))
    make_ladders(LadderRequest(contents, tmp_path / "b", ("scale", "camera"), kinds=2, levels=(5,), side=64))
    first, second = snapshot(tmp_path / "a"), snapshot(tmp_path / "b")
    assert first.items() <= second.items()


def test_reported_kinds_are_made_only_where_asked_for(contents, tmp_path):
    names = []
    for folder, asked in (("a", False), ("b", True)):
        request = LadderRequest(contents[:1], tmp_path / folder, ("camera",), None, (5,), 64, reported=asked)
        names.append({path.stem.split("-")[2] for path in make_ladders(request)})
    assert "webp" not in names[0]
    assert {"webp", "jpeg2000"} <= names[1]


def test_latent_and_generated_ladders_of_a_real_model(contents, backbone, tmp_path):
    asked = LadderRequest(contents[:2], tmp_path / "a", ("latent", "generation"), kinds=2, levels=(1, 5), side=64)
    make_ladders(asked, backbone)
    ladders = read_ladders(tmp_path / "a")
    assert {ladder[-1].family for ladder in ladders} == {"latent", "generation"}
    assert all([rung.level for rung in ladder] == [0, 1, 5] for ladder in ladders)
    again = tmp_path / "b"
    make_ladders(
        LadderRequest(contents[:2], again, ("latent", "generation"), kinds=2, levels=(1, 5), side=64), backbone
    )
    assert snapshot(tmp_path / "a") == snapshot(again)
    with pytest.raises(BadInput, match="--model"):
        make_ladders(asked)


def test_sdedit_goes_further_from_the_picture_with_its_strength(backbone):
    kind = generation_kinds(backbone)[0]
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    begins = kind.damaged(image, 0)
    apart = [float((kind.damaged(image, level) - begins).square().mean()) for level in (1, 5)]
    assert 0.0 < apart[0] < apart[1]


def test_extremes_of_a_checkpoint_of_ones_own(diffusers, tiny_folder, tmp_path):
    from latent_critic.core.hosts.diffusers.loading import load_pipeline
    from latent_critic.core.train.judge_extremes import ExtremesRequest, make_extremes

    pipeline = load_pipeline(str(tiny_folder))
    pipeline.set_progress_bar_config(disable=True)
    asked = ExtremesRequest(("a house", "a tree"), tmp_path, "tiny", steps=7, few=1, side=64)
    made = make_extremes(asked, pipeline)
    ladders = read_ladders(tmp_path)
    assert len(made) == 8
    assert len({ladder[-1].group for ladder in ladders}) == 2
    assert sorted(ladder[-1].kind for ladder in ladders[:3]) == ["absurd_guidance", "few_steps", "stopped_early"]
    pixels = {path.name: np.asarray(Image.open(path), dtype=int) for path in made}
    apart = [np.abs(pixels[ladder[0].path.name] - pixels[ladder[1].path.name]).mean() for ladder in ladders]
    assert min(apart) > 0
    stamps = [path.stat().st_mtime_ns for path in made]
    make_extremes(asked, None)  # nothing is missing: the model is not asked
    assert [path.stat().st_mtime_ns for path in made] == stamps
    with pytest.raises(BadInput, match="tells of its steps"):
        make_extremes(asked, object.__new__(type("Silent", (), {"__call__": lambda self, prompt: None})))
    for wrong in ({"few": 12}, {"absurd": 6.0}, {"stop": 0.9}, {"seeds": ()}):
        with pytest.raises(BadInput, match="Expected"):
            ExtremesRequest(("a",), tmp_path, "tiny", **wrong)


@pytest.mark.parametrize("wrong", [{"families": ("other",)}, {"levels": (6,)}, {"side": 8}, {"kinds": 0}])
def test_bad_requests(wrong, contents, tmp_path):
    with pytest.raises(BadInput, match="Expected"):
        LadderRequest(contents, tmp_path, **wrong)
    with pytest.raises(BadInput, match="--contents"):
        LadderRequest((), tmp_path)


def test_a_broken_content_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableFile, match=r"broken\.png"):
        make_ladders(LadderRequest((tmp_path / "broken.png",), tmp_path / "a", ("camera",)))


def test_the_command(contents, tmp_path, capsys):
    from latent_critic.core.cli.main import main

    out = tmp_path / "made"
    command = f"train judge-ladders --out {out} --families camera --kinds 1 --levels 5 --side 64"
    assert main([*command.split(), "--contents", str(contents[0].parent), "--limit", "2"]) == 0
    assert "4 pictures" in capsys.readouterr().err
    assert len(read_ladders(out)) == 2
    assert main(command.split()) == 2
    assert "--contents" in capsys.readouterr().err


def noise(path, seed, size=(64, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def listing(folder, rows):
    """A manifest of (file, path in its source, held back)."""
    told = [{"file": name, "source": "s", "path": path, "held_back": held} for name, path, held in rows]
    (folder / "manifest.json").write_text(json.dumps({"sources": {}, "pictures": told}))


def names(folder, *files):
    return {content_of(folder / file)[:16] for file in files}


@pytest.fixture
def listed(tmp_path):
    """Frames of two clips, one of them with a held-back frame; a held-back picture and its copy; one alone."""
    folder = tmp_path / "contents"
    for seed, name in enumerate(("a", "b", "c", "d", "e", "f")):
        noise(folder / f"{name}.png", seed)
    (folder / "copy.png").write_bytes((folder / "e.png").read_bytes())
    rows = [("a.png", "one-1.webp", False), ("b.png", "one-2.webp", False), ("c.png", "two-1.webp", True)]
    listing(folder, [*rows, ("d.png", "two-2.webp", False), ("e.png", "held.png", True), ("f.png", "alone.png", False)])
    return folder


def run(contents, out, more=""):
    from latent_critic.core.cli.main import main

    command = f"train judge-ladders --contents {contents} --out {out} --families camera --kinds 1 --levels 5 --side 64"
    return main([*command.split(), *more.split()])


def test_what_a_manifest_holds_back_is_left_out_with_its_kin_and_copies(listed, tmp_path, capsys):
    out = tmp_path / "made"
    assert run(listed, out) == 0
    assert "6 pictures" in capsys.readouterr().err
    groups = {ladder[-1].content: ladder[-1].group for ladder in read_ladders(out)}
    assert groups.keys() == names(listed, "a.png", "b.png", "f.png")
    (frames,) = {groups[name] for name in names(listed, "a.png", "b.png")}
    assert frames not in {groups[name] for name in names(listed, "f.png")}
    assert run(listed / "f.png", out) == 0  # a run of less keeps what another noted
    assert {ladder[-1].content: ladder[-1].group for ladder in read_ladders(out)} == groups
    assert run(listed / "e.png", out) == 2
    assert "1 held back" in capsys.readouterr().err


def test_a_manifest_counts_above_and_below_the_folder_that_is_named(listed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for given in (tmp_path / "contents", tmp_path, "~/contents", f"{listed}/*.png"):
        assert run(given, tmp_path / "made") == 0
        made = {ladder[-1].content for ladder in read_ladders("~/made")}
        assert made == names(listed, "a.png", "b.png", "f.png")
        shutil.rmtree(tmp_path / "made")


def test_ladders_are_no_contents(listed, tmp_path, capsys):
    for _ in range(2):
        assert run(listed, listed / "ladders") == 0
        assert "6 pictures" in capsys.readouterr().err


def test_narrow_pictures_are_left_out(tmp_path, capsys, caplog):
    noise(tmp_path / "contents" / "strip.png", 0, (100, 2))
    assert run(tmp_path / "contents", tmp_path / "made") == 2
    assert "1 too small" in capsys.readouterr().err
    noise(tmp_path / "contents" / "large.png", 1)
    assert run(tmp_path / "contents", tmp_path / "made") == 0
    assert "below 64 px" in caplog.text


def test_another_side_is_refused(contents, tmp_path):
    request = LadderRequest(contents[:1], tmp_path, ("camera",), kinds=1, levels=(5,), side=64)
    make_ladders(request)
    with pytest.raises(BadInput, match="one --side"):
        make_ladders(LadderRequest(contents[:1], tmp_path, ("scale",), kinds=1, levels=(5,), side=80))
    assert len(read_ladders(tmp_path)) == 1


@pytest.mark.parametrize(
    "told", ["[]]", '{"pictures": ["a.png"]}', '{"pictures": [{"name": "a.png"}]}', '{"pictures": 3}']
)
def test_a_manifest_of_another_shape_is_named(told, tmp_path, capsys):
    noise(tmp_path / "contents" / "a.png", 0)
    (tmp_path / "contents" / "manifest.json").write_text(told)
    assert run(tmp_path / "contents", tmp_path / "made") != 0
    assert "a manifest with a list" in capsys.readouterr().err


def test_somebody_elses_manifest_says_nothing(tmp_path):
    noise(tmp_path / "contents" / "a.png", 0)
    for told in ("null", '{"name": "an app"}'):
        (tmp_path / "manifest.json").write_text(told)
        assert run(tmp_path / "contents", tmp_path / "made") == 0


def test_the_same_picture_in_two_files_is_one_group(tmp_path):
    folder = tmp_path / "contents"
    Image.open(noise(folder / "a.png", 0)).save(folder / "b.png", compress_level=1)
    noise(folder / "c.png", 1)
    assert run(folder, tmp_path / "made") == 0
    groups = {ladder[-1].content: ladder[-1].group for ladder in read_ladders(tmp_path / "made")}
    assert len(groups) == 3
    assert len({groups[name] for name in names(folder, "a.png", "b.png")}) == 1
    assert len(set(groups.values())) == 2


def test_a_third_picture_ties_groups_together(tmp_path):
    cleans = {content: tmp_path / f"{content}.png" for content in ("aa", "bb", "cc", "dd")}
    for seed, path in enumerate(cleans.values()):
        noise(path, seed)
    write_groups(tmp_path, {"aa": ["clip"], "bb": ["clip", "prompt"]})
    write_groups(tmp_path, {"cc": ["prompt"]})
    groups = read_groups(tmp_path, cleans)
    assert groups["aa"] == groups["bb"] == groups["cc"]
    assert groups["dd"] == "dd"
    assert read_groups(tmp_path / "none", cleans) == {content: content for content in cleans}


def test_groups_that_cannot_be_read_are_named(contents, tmp_path):
    made = make_ladders(LadderRequest(contents[:1], tmp_path, ("camera",), kinds=1, levels=(5,), side=64))
    assert all(rung.group == rung.content for ladder in read_ladders(tmp_path) for rung in ladder)
    for torn in ('{"a": ', "[]", '{"a": "no number"}', '{"a": 3}'):
        (tmp_path / "groups-x.json").write_text(torn)
        with pytest.raises(UnreadableFile, match="Delete it"):
            read_ladders(tmp_path)
    assert all(path.exists() for path in made)
