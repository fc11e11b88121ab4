"""Every public layout that a loader knows, made up in miniature: splits, direction, contents, kinds, faults."""

from __future__ import annotations

import numpy as np
import pytest
from latent_critic.core.data.damaged import KADID_KINDS, TID_KINDS
from latent_critic.core.data.loaders import LOADERS, load
from latent_critic.core.errors import BadInput, UnreadableFile
from openpyxl import Workbook
from PIL import Image
from scipy.io import savemat


def pictures(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def excel(path, *rows, sheet="Sheet1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    book.save(path)


def koniq10k(root):
    pictures(root, "1024x768/1.jpg", "1024x768/2.jpg", "1024x768/3.jpg")
    text(
        root / "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set",
        "1.jpg,0,0,25,73,7,105,70.7,8.0,training",
        "2.jpg,0,3,45,47,1,96,50.0,8.6,validation",
        "3.jpg,1,0,20,73,2,96,62.5,7.6,test",
    )
    return [("1.jpg", 70.7, "train"), ("2.jpg", 50.0, "validation"), ("3.jpg", 62.5, "test")]


def clive(root):
    names = [f"t{place}.bmp" for place in range(1, 8)] + ["10.bmp", "3.JPG"]
    pictures(root, "Images/10.bmp", "Images/3.jpg", *(f"Images/trainingImages/{name}" for name in names[:7]))
    (root / "Data").mkdir()
    savemat(root / "Data/AllImages_release.mat", {"AllImages_release": np.array(names, dtype=object)[:, None]})
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.array([[50.0] * 7 + [63.9, 3.4]])})
    return [("10.bmp", 63.9, "all"), ("3.jpg", 3.4, "all")]


def spaq(root):
    pictures(root, "TestImage/00001.jpg", "TestImage/00002.jpg")
    excel(
        root / "Annotations/MOS and Image attribute scores.xlsx",
        ["Image name", "MOS", "Brightness", "Colorfulness"],
        ["00001.jpg", 48.86, 50, 51],
        ["00002.jpg", 62, 50, 51],
    )
    return [("00001.jpg", 48.86, "all"), ("00002.jpg", 62.0, "all")]


def flive(root):
    folder = "database/voc_emotic_ava"
    pictures(root, *(f"{folder}/{name}.jpg" for name in "abc"))
    text(
        root / "labels_image.csv",
        "name,mos",
        *(f"voc_emotic_ava/{n}.jpg,{m}" for n, m in (("a", 70), ("b", 80), ("c", 90))),
    )
    text(root / "labels640.csv", "name_image,mos_image", "voc_emotic_ava/c.jpg,90")
    text(
        root / "labels=640_padded.csv",
        "name_image,is_valid",
        "voc_emotic_ava/a.jpg,False",
        "voc_emotic_ava/b.jpg,True",
    )
    return [("a.jpg", 70.0, "train"), ("b.jpg", 80.0, "validation"), ("c.jpg", 90.0, "test")]


def kadid10k(root):
    pictures(root, "images/I01_01_01.png", "images/I02_25_05.png")
    text(
        root / "dmos.csv",
        "dist_img,ref_img,dmos,var",
        "I01_01_01.png,I01.png,4.57,0.5",
        "I02_25_05.png,I02.png,1.00,0.0",
    )
    return [("I01_01_01.png", 89.25, "all"), ("I02_25_05.png", 0.0, "all")]


def tid2013(root):
    pictures(root, "distorted_images/i01_02_1.bmp", "distorted_images/I25_24_5.BMP")
    text(root / "mos_with_names.txt", "4.50000 I01_02_1.bmp", "9 i25_24_5.bmp")
    return [("i01_02_1.bmp", 50.0, "all"), ("I25_24_5.BMP", 100.0, "all")]


def csiq(root):
    pictures(root, "dst_imgs/AWGN/1600.AWGN.1.png", "dst_imgs/jpeg2000/trolley.jpeg2000.5.png")
    excel(
        root / "csiq.DMOS.xlsx",
        ["CSIQ"],
        [],
        [None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
        [None, None, None, 1600, 1, "noise", 1, 0.061, 0.062],
        [None, None, None, "trolley", 3, "jpeg 2000", 5, 0.1, 1],
        sheet="all_by_image",
    )
    return [("1600.AWGN.1.png", 93.8, "all"), ("trolley.jpeg2000.5.png", 0.0, "all")]


LIVE_SIZES = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def live(root, shown=(1, 982)):
    """982 entries, of which all but two are hidden references."""
    for name in LIVE_SIZES:
        (root / name).mkdir(parents=True)
    pictures(root, "jp2k/img2.bmp", "fastfading/img174.bmp")
    hidden = np.ones((1, 982))
    hidden[0, 1] = hidden[0, 981] = 0
    scores = np.zeros((1, 982))
    scores[0, 1], scores[0, 981] = 55.0, 91.0
    savemat(root / "dmos_realigned.mat", {"dmos_new": scores, "orgs": hidden, "dmos_std": scores})
    savemat(root / "refnames_all.mat", {"refnames_all": np.array([["Bikes.bmp"] * 982], dtype=object)})
    return [("img2.bmp", 50.0, "all"), ("img174.bmp", 20.0, "all")]


def pipal(root):
    pictures(root, "Distortion_1/A0001_00_00.bmp", "Distortion_3/A0001_03_12.bmp")
    text(root / "Train_Label/A0001.txt", "A0001_00_00.bmp,1400", "A0001_03_12.bmp,920.0000")
    return [("A0001_00_00.bmp", 50.0, "train"), ("A0001_03_12.bmp", 10.0, "train")]


def agiqa1k(root):
    pictures(root, "file/deepai_0_0_0_0.jpg", "file/dreamStudio_0_0_0_0.jpg")
    prompt = "bird, driving aircraft, city, anime style"
    excel(
        root / "AIGC_MOS_Zscore.xlsx",
        ["Image", "Prompt", "MOS"],
        ["deepai_0_0_0_0.jpg", prompt, 2.5],
        ["dreamStudio_0_0_0_0.jpg", prompt, 5],
    )
    return [("deepai_0_0_0_0.jpg", 50.0, "all"), ("dreamStudio_0_0_0_0.jpg", 100.0, "all")]


def agiqa3k(root):
    pictures(root, "AttnGAN_normal_000.jpg", "sd1.5_high_001.jpg")
    text(
        root / "data.csv",
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align",
        "AttnGAN_normal_000.jpg,statue of a man,,,,1,0.2,0.4,0.6",
        'sd1.5_high_001.jpg,"a bench, sunny",bright,,anime,4,0.2,0.4,0.6',
    )
    return [("AttnGAN_normal_000.jpg", 20.0, "all"), ("sd1.5_high_001.jpg", 80.0, "all")]


def aigiqa20k(root):
    pictures(root, "train/DALLE2_0001.png", "val/SDXL_0002.png", "test/SD1.4_0003.png")
    text(root / "info_train.csv", "name,prompt,mos", 'DALLE2_0001.png,"a cat, red",2.5')
    text(root / "info_val.csv", "name,prompt,mos", "SDXL_0002.png,a dog,5")
    text(root / "info_test.csv", "name,prompt,mos", "SD1.4_0003.png,a fox,0")
    names = ("DALLE2_0001.png", "SDXL_0002.png", "SD1.4_0003.png")
    return list(zip(names, (50.0, 100.0, 0.0), ("train", "validation", "test"), strict=True))


def ai_human_images(root):
    pictures(root, "images/dall-e3/couple_hugging/dall_e3_hug_01.png", "images/sdXL/person_jogging/sdXL_jog_02.jpg")
    text(
        root / "data" / "annotations.csv",
        "Image Id,Model,Prompt,Pic Num.,1. Missing Error-1.2 Limbs,2. Extra Error-2.4 Hands,Annotator",
        'dall-e3_couple hugging_01,dall-e3,couple hugging,1,2/4c,"1/1b,1/2b",anno1',
        "dall-e3_couple hugging_01,dall-e3,couple hugging,1,,,anno2",
        "sdxl_person jogging_02,sdxl,person jogging,2,,,anno1",
    )
    return [("dall_e3_hug_01.png", 50.0, "test"), ("sdXL_jog_02.jpg", 100.0, "test")]


MAKERS = {
    maker.__name__: maker
    for maker in (
        koniq10k,
        clive,
        spaq,
        flive,
        kadid10k,
        tid2013,
        csiq,
        live,
        pipal,
        agiqa1k,
        agiqa3k,
        aigiqa20k,
        ai_human_images,
    )
}


@pytest.fixture
def made(tmp_path):
    """`made(name)` → (root, what the loader should find there)."""

    def make(name):
        root = tmp_path / name
        root.mkdir()
        return root, MAKERS[name](root)

    return make


def test_every_loader_has_its_miniature():
    assert set(MAKERS) | {"biq2021", "mmp2k", "csv"} == set(LOADERS)


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_ratings_and_splits(made, name):
    root, expected = made(name)
    found = load(name, root)
    assert [i.path.name for i in found.images] == [file for file, _, _ in expected]
    assert [i.mos for i in found.images] == pytest.approx([mos for _, mos, _ in expected])
    assert [i.split for i in found.images] == [split for _, _, split in expected]
    assert load(name, root.parent) == found, "the folder around it is forgiven"


@pytest.mark.parametrize("name", MAKERS)
def test_a_wrong_root_says_what_was_expected(tmp_path, name):
    with pytest.raises(BadInput, match=r"as its authors publish it, holding .*empty folder"):
        load(name, tmp_path)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(BadInput, match=r"holds readme.txt"):
        load(name, tmp_path)
    with pytest.raises(BadInput, match="which is not there"):
        load(name, tmp_path / "gone")
    with pytest.raises(BadInput, match="the file"):
        load(name, tmp_path / "readme.txt")


@pytest.mark.parametrize("name", MAKERS)
def test_missing_pictures_are_counted_and_listed(made, name):
    root, expected = made(name)
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png"), *root.rglob("*.[bB][mM][pP]")]:
        path.unlink()
    with pytest.raises(UnreadableFile) as caught:
        load(name, root)
    assert f"{len(expected)} of {len(expected)} missing" in str(caught.value)
    named = "dall-e3, couple hugging, 1" if name == "ai_human_images" else expected[0][0]  # its list names no files
    assert named.lower() in str(caught.value).lower()


#: Where each list holds its first rating: (file, the text of that rating).
RATINGS = {
    "koniq10k": ("koniq10k_distributions_sets.csv", "70.7"),
    "flive": ("labels_image.csv", "70"),
    "kadid10k": ("dmos.csv", "4.57"),
    "tid2013": ("mos_with_names.txt", "4.50000"),
    "pipal": ("Train_Label/A0001.txt", "1400"),
    "agiqa3k": ("data.csv", ",1,0.2"),
    "aigiqa20k": ("info_train.csv", "2.5"),
}


@pytest.mark.parametrize("name", RATINGS)
@pytest.mark.parametrize(
    ("bad", "words"), [("3000", "scale of"), ("nan", "NaN for"), ("inf", "scale of"), ("x", "'x'")]
)
def test_ratings_that_cannot_be(made, name, bad, words):
    root, _ = made(name)
    file, good = RATINGS[name]
    before = (root / file).read_text()
    assert good in before
    (root / file).write_text(before.replace(good, good.replace(good.strip(",").partition(",")[0], bad), 1))
    with pytest.raises(BadInput, match=words):
        load(name, root)


@pytest.mark.parametrize("name", RATINGS)
def test_a_name_twice(made, name):
    root, _ = made(name)
    file, good = RATINGS[name]
    lines = (root / file).read_text().splitlines()
    twice = next(line for line in lines if good in line)
    text(root / file, *lines, twice)
    with pytest.raises(BadInput, match="twice"):
        load(name, root)


@pytest.mark.parametrize("name", RATINGS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(made, name, encoding):
    root, _ = made(name)
    before = load(name, root)
    path = root / RATINGS[name][0]
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert load(name, root) == before


@pytest.mark.parametrize("name", RATINGS)
def test_another_encoding_is_an_error_with_its_remedy(made, name):
    root, _ = made(name)
    path = root / RATINGS[name][0]
    path.write_bytes(path.read_bytes() + "é.jpg,1".encode("latin-1"))
    with pytest.raises(UnreadableFile, match="Save it as UTF-8"):
        load(name, root)


def test_scores_out_of_range_in_matlab_and_excel(made):
    root, _ = made("clive")
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.array([[50.0] * 8 + [104.0]])})
    with pytest.raises(BadInput, match=r"104 \(of 0 to 100\)"):
        load("clive", root)
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.array([[50.0] * 8 + [np.nan]])})
    with pytest.raises(BadInput, match="NaN"):
        load("clive", root)
    root, _ = made("agiqa1k")
    excel(root / "AIGC_MOS_Zscore.xlsx", ["Image", "Prompt", "MOS"], ["deepai_0_0_0_0.jpg", "x", 5.5])
    with pytest.raises(BadInput, match=r"5.5 \(of 0 to 5\)"):
        load("agiqa1k", root)


def test_damaged_lists_are_errors(made):
    root, _ = made("clive")
    (root / "Data/AllMOS_release.mat").write_bytes(b"not MATLAB")
    with pytest.raises(UnreadableFile, match=r"MATLAB file AllMOS_release\.mat"):
        load("clive", root)
    savemat(root / "Data/AllMOS_release.mat", {"other": 1})
    with pytest.raises(UnreadableFile, match="no such array"):
        load("clive", root)
    root, _ = made("spaq")
    (root / "Annotations/MOS and Image attribute scores.xlsx").write_bytes(b"not Excel")
    with pytest.raises(UnreadableFile, match="list of ratings"):
        load("spaq", root)
    root, _ = made("koniq10k")
    text(root / "koniq10k_distributions_sets.csv", "picture,quality", "1.jpg,3")
    with pytest.raises(BadInput, match="the columns image_name, MOS, set"):
        load("koniq10k", root)
    root, _ = made("csiq")
    excel(root / "csiq.DMOS.xlsx", ["image"], sheet="all_by_type")
    with pytest.raises(BadInput, match="a sheet all_by_image"):
        load("csiq", root)
    root, _ = made("live")
    savemat(root / "refnames_all.mat", {"refnames_all": np.array([["bikes.bmp"] * 9], dtype=object)})
    with pytest.raises(BadInput, match="982 entries"):
        load("live", root)
    root, _ = made("kadid10k")
    text(root / "dmos.csv", "dist_img,ref_img,dmos,var", "I01_26_01.png,I01.png,4,0")
    with pytest.raises(BadInput, match="such as I01_07_03"):
        load("kadid10k", root)


@pytest.mark.parametrize("name", ["spaq", "csiq", "agiqa1k"])
def test_a_csv_export_stands_in_for_the_excel_file(made, name, monkeypatch):
    root, _ = made(name)
    before = load(name, root)
    (path,) = root.rglob("*.xlsx")
    from latent_critic.core.data.tables import _sheet

    sheet = "all_by_image" if name == "csiq" else None
    rows = [",".join(f'"{cell}"' for cell in row) for row in _sheet(path, sheet)]
    path.unlink()
    text(path.with_suffix(".csv"), *rows)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert load(name, root) == before


def test_excel_without_openpyxl_names_the_extra(made, monkeypatch):
    root, _ = made("spaq")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"latent-critic\[data\]"):
        load("spaq", root)


def test_koniq_without_the_official_parts(made):
    root, _ = made("koniq10k")
    (root / "koniq10k_distributions_sets.csv").unlink()
    text(
        root / "koniq10k_scores_and_distributions.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore",
        *(f'"{place}.jpg",0,0,25,73,7,105,3.8,0.5,{60 + place}' for place in (1, 2, 3)),
    )
    (root / "1024x768").rename(root / "512x384")
    found = load("koniq10k", root)
    assert [(i.mos, i.split) for i in found.images] == [(61.0, "all"), (62.0, "all"), (63.0, "all")]
    assert found.reported == "all"


def test_flive_without_its_other_lists_is_not_split(made):
    root, _ = made("flive")
    for name in ("labels640.csv", "labels=640_padded.csv"):
        (root / name).unlink()
    assert {image.split for image in load("flive", root).images} == {"all"}


def test_contents_kinds_and_levels(made):
    root, _ = made("kadid10k")
    assert [(i.group, i.kind, i.level) for i in load("kadid10k", root).images] == [
        ("I01", "gaussian blur", 1),
        ("I02", "contrast change", 5),
    ]
    root, _ = made("tid2013")
    assert [(i.group, i.kind, i.level) for i in load("tid2013", root).images] == [
        ("I01", "noise in colour", 1),
        ("I25", "sparse sampling", 5),
    ]
    root, _ = made("csiq")
    assert [(i.group, i.kind, i.level) for i in load("csiq", root).images] == [
        ("1600", "white noise", 1),
        ("trolley", "jpeg 2000", 5),
    ]
    root, _ = made("live")
    assert [(i.group, i.kind) for i in load("live", root).images] == [("bikes", "jpeg 2000"), ("bikes", "fast fading")]
    root, _ = made("pipal")
    assert [(i.group, i.kind) for i in load("pipal", root).images] == [("A0001", "kind 00"), ("A0001", "kind 03")]
    assert (len(set(KADID_KINDS)), len(set(TID_KINDS))) == (25, 24)


def test_prompts_travel_and_group(made):
    root, _ = made("agiqa1k")
    one, two = load("agiqa1k", root).images
    assert one.prompt == one.group == two.group == "bird, driving aircraft, city, anime style"
    assert (one.kind, two.kind) == ("deepai", "dreamStudio")
    root, _ = made("agiqa3k")
    assert [i.prompt for i in load("agiqa3k", root).images] == ["statue of a man", "a bench, sunny"]
    root, _ = made("aigiqa20k")
    assert load("aigiqa20k", root).part("test").images[0].prompt == "a fox"


def test_a_part_without_ratings_is_left_out_and_said(made, caplog):
    root, _ = made("aigiqa20k")
    text(root / "info_test.csv", "name,prompt", "SD1.4_0003.png,a fox")
    assert [i.split for i in load("aigiqa20k", root).images] == ["train", "validation"]
    assert "no ratings of its test part" in caplog.text


def test_agiqa1k_leaves_out_the_picture_with_two_ratings(made, caplog):
    root, _ = made("agiqa1k")
    rows = [["deepai_0_0_0_0.jpg", "x", 1], ["dreamStudio_0_0_0_0.jpg", "x", 2], ["dreamStudio_0_0_0_0.jpg", "x", 3]]
    excel(root / "AIGC_MOS_Zscore.xlsx", ["Image", "Prompt", "MOS"], *rows)
    assert [(i.path.name, i.mos) for i in load("agiqa1k", root).images] == [("deepai_0_0_0_0.jpg", 20.0)]
    assert "dreamstudio_0_0_0_0.jpg is listed with 2 ratings" in caplog.text


def test_a_list_with_a_prompt(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    text(tmp_path / "mine.csv", "path,score,group,prompt", 'a.png,50,cats,"a cat, red"', "b.png,60")
    found = LOADERS["csv"](tmp_path / "mine.csv")
    assert [(i.group, i.prompt) for i in found.images] == [("cats", "a cat, red"), ("b.png", None)]
