"""Loaders on small sets in the authors' own layouts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latent_critic.core.data.loaders import biq2021, load, mmp2k, rated_csv
from latent_critic.core.data.split import split_by_group
from latent_critic.core.errors import BadInput, UnreadableFile
from PIL import Image


def pictures(folder: Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)


def biq(folder: Path, train="a 1.jpg,0.25,,\n", test="b.jpg,0.5,,\n") -> Path:
    pictures(folder / "Images", ["a 1.jpg", "b.jpg"])
    (folder / "Train (Images and MOS).csv").write_text("Image Name,MOS,,\n" + train)
    (folder / "Test (Images and MOS).csv").write_text("Image Name,MOS\n" + test)
    return folder


def test_biq2021_with_its_empty_trailing_columns(tmp_path):
    found = biq2021(biq(tmp_path))
    assert [(i.path.name, i.mos, i.split) for i in found.images] == [
        ("a 1.jpg", 25.0, "train"),
        ("b.jpg", 50.0, "test"),
    ]
    assert [i.path.name for i in found.part("test").images] == ["b.jpg"]
    assert load("biq2021", tmp_path) == found


def test_biq2021_forgives_the_case_of_a_name(tmp_path):
    found = biq2021(biq(tmp_path, test="B.JPG,0.5,,\n"))
    assert found.images[1].path.is_file()


def test_mmp2k_from_the_repository_root_or_the_inner_folder(tmp_path):
    inner = tmp_path / "backend" / "server" / "image_base"
    pictures(inner, ["1.jpg", "10.jpg", "2.jpg"])
    (inner / "final_image_mos.json").write_text(json.dumps({"10": 55.5, "1": 60, "2": 70}))
    found = mmp2k(tmp_path)
    assert found == mmp2k(inner)
    assert [(i.path.name, i.mos) for i in found.images] == [("1.jpg", 60.0), ("2.jpg", 70.0), ("10.jpg", 55.5)]
    with pytest.raises(BadInput, match="a part of MMP-2K"):
        found.part("train")


def test_a_csv_with_a_scale_a_group_and_a_heading(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "mine.csv").write_text("path,score,group\na.png,1,cat\nb.png,5,\n\n")
    found = rated_csv(tmp_path / "mine.csv", scale=(1, 5))
    assert [(i.mos, i.group) for i in found.images] == [(0.0, "cat"), (100.0, "b.png")]
    lower_is_better = rated_csv(tmp_path / "mine.csv", scale=(5, 1))
    assert [i.mos for i in lower_is_better.images] == [100.0, 0.0]


@pytest.mark.parametrize(
    ("train", "error", "words"),
    [
        ("gone.jpg,0.5,,\n", UnreadableFile, "gone.jpg"),
        ("a 1.jpg,0.5,,\na 1.jpg,0.6,,\n", BadInput, "twice"),
        ("a 1.jpg,1.5,,\n", BadInput, "scale of BIQ2021"),
        ("a 1.jpg,nan,,\n", BadInput, "NaN for a 1.jpg"),
        ("a 1.jpg,high,,\n", BadInput, "a number"),
        ("a 1.jpg\n", BadInput, "a path and a rating"),
    ],
)
def test_broken_lists(tmp_path, train, error, words):
    with pytest.raises(error, match=words):
        biq2021(biq(tmp_path, train=train))


def test_a_missing_list_an_empty_one_and_an_unknown_loader(tmp_path):
    with pytest.raises(BadInput, match=r"BIQ2021 as its authors publish it, holding Images, Train .*the empty folder"):
        biq2021(tmp_path)
    (tmp_path / "none.csv").write_text("path,score\n")
    with pytest.raises(BadInput, match="rated pictures"):
        rated_csv(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="csv for any other"):
        load("koniq", tmp_path)
    with pytest.raises(BadInput, match="ends differ"):
        rated_csv(tmp_path / "none.csv", scale=(3, 3))


@given(st.lists(st.integers(0, 9), min_size=2), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_group_never_lies_on_both_sides(groups, share, seed):
    if len(set(groups)) < 2:
        with pytest.raises(BadInput):
            split_by_group(groups, share, seed)
        return
    kept, held = split_by_group(groups, share, seed)
    assert sorted(kept + held) == list(range(len(groups)))
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert kept
    assert held
    assert (kept, held) == split_by_group(groups, share, seed)
