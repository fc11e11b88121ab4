"""Ladders made into a folder: stopped and gone on, through a real tiny model, and by the command."""

import json

import numpy as np
import pytest
import torch
from latent_critic.core.data.ladder import read_ladders
from latent_critic.core.data.ladder_generation import generation_kinds
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


def test_a_manifest_holds_pictures_back_and_keeps_a_clip_together(contents, tmp_path, capsys):
    from latent_critic.core.cli.main import main

    folder, out = tmp_path / "contents", tmp_path / "made"
    folder.mkdir()
    listed = []
    for name, told in (("a", "clip-1.webp"), ("b", "clip-2.webp"), ("c", "held.png"), ("d", "alone.png")):
        made = Image.effect_noise((64, 64), 20 + ord(name))
        made.convert("RGB").save(folder / f"{name}.png")
        listed.append({"file": f"{name}.png", "source": "s", "path": told, "held_back": name == "c"})
    (folder / "manifest.json").write_text(json.dumps({"sources": {}, "pictures": listed}))
    command = f"train judge-ladders --contents {folder} --out {out} --families camera --kinds 1 --levels 5 --side 64"
    assert main(command.split()) == 0
    assert "6 pictures" in capsys.readouterr().err
    groups = {ladder[-1].content: ladder[-1].group for ladder in read_ladders(out)}
    a, b, d = (content_of(folder / f"{name}.png")[:16] for name in "abd")
    assert groups.keys() == {a, b, d}
    assert groups[a] == groups[b] != groups[d]
    assert len({groups[a], a, b}) == 3
    frames = [ladder[-1] for ladder in read_ladders(out) if ladder[-1].group == groups[a]]
    for share in (2, 3, 5, 7):
        assert len({rung.is_held_back(share) for rung in frames}) == 1
    (folder / "a.png").unlink()
    assert main(command.split()) == 0  # what was noted of others stays
    assert {ladder[-1].group for ladder in read_ladders(out)} == set(groups.values())


def test_groups_that_cannot_be_read_are_named(contents, tmp_path):
    made = make_ladders(LadderRequest(contents[:1], tmp_path, ("camera",), kinds=1, levels=(5,), side=64))
    assert all(rung.group == rung.content for ladder in read_ladders(tmp_path) for rung in ladder)
    assert not (tmp_path / "groups.json").exists()
    for torn in ('{"a": ', "[]", '{"a": "no number"}'):
        (tmp_path / "groups.json").write_text(torn)
        with pytest.raises(UnreadableFile, match="Delete it"):
            read_ladders(tmp_path)
    assert all(path.exists() for path in made)
