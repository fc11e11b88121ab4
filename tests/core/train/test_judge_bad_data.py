"""Bad data of the judge's trainings: refused by name at the door, before any work, by every command that takes it."""

import pytest
from latent_critic.core.cli.main import main
from PIL import Image

COMMANDS = {
    "judge": "train judge --data {data} --out {to}/mine.safetensors --cache {to}/cache",
    "judge-finetune": "train judge-finetune --data {data} --out {to}/a.safetensors --cache {to}/cache --run {to}/run",
    "judge-study": "train judge-study --loader csv --data {data} --out {to}/study.json --cache {to}/cache",
}
LISTS = {
    "missing": (["0.png,10", "gone.png,20", "2.png,30"], ("1 of 3 missing", "gone.png")),
    "above the scale": (["0.png,10", "1.png,101", "2.png,30"], ("101", "1.png")),
    "below the scale": (["0.png,10", "1.png,-1", "2.png,30"], ("-1", "1.png")),
    "not a number": (["0.png,10", "1.png,good", "2.png,30"], ("good", "1.png")),
    "not finite": (["0.png,10", "1.png,nan", "2.png,30"], ("NaN", "1.png")),
    "twice": (["0.png,10", "1.png,20", "0.png,30"], ("0.png twice",)),
    "no rating": (["0.png,10", "1.png", "2.png,30"], ("row 3", "1.png")),
    "empty": ([], ("none",)),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for place in range(3):
        Image.new("RGB", (64, 64), (80 * place, 0, 0)).save(folder / f"{place}.png")
    return folder


def refused(command, to, capsys, words):
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    for word in words:
        assert word in told, told
    assert not list(to.iterdir()), "nothing was begun"


@pytest.mark.parametrize("fault", LISTS)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_broken_list(kind, fault, pictures, tmp_path, capsys):
    rows, words = LISTS[fault]
    (pictures / "list.csv").write_text("\n".join(["path,score", *rows]) + "\n")
    refused(COMMANDS[kind].format(data=pictures / "list.csv", to=tmp_path), tmp_path, capsys, words)


BIQ = (
    "train judge-finetune --loader biq2021 --data {data} --out {to}/mine.safetensors --cache {to}/cache --run {to}/run"
)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (["a.jpg,0.5", "gone.jpg,0.5"], ("missing", "gone.jpg")),
        (["a.jpg,1.5", "b.jpg,0.5"], ("1.5", "a.jpg")),
        (["a.jpg,0.5", "a.jpg,0.6"], ("a.jpg twice",)),
        (["a.jpg,0.5", "A.JPG,0.6"], ("twice",)),
    ],
)
def test_a_broken_folder_of_a_public_set(listed, words, tmp_path, capsys):
    root, to = tmp_path / "biq", tmp_path / "to"
    (root / "Images").mkdir(parents=True)
    to.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (64, 64)).save(root / "Images" / name)
    (root / "Train (Images and MOS).csv").write_text("\n".join(["Images,MOS", *listed]) + "\n")
    (root / "Test (Images and MOS).csv").write_text("Images,MOS\nc.jpg,0.5\n")
    refused(BIQ.format(data=root, to=to), to, capsys, words)


def test_ratings_that_are_all_alike_say_so(pictures, tmp_path, capsys):
    """Known only once the pictures are looked at; no judge is written."""
    (pictures / "list.csv").write_text("0.png,50\n1.png,50\n2.png,50\n")
    assert main(COMMANDS["judge"].format(data=pictures / "list.csv", to=tmp_path).split()) == 2
    assert "different ratings" in capsys.readouterr().err
    assert not (tmp_path / "mine.safetensors").exists()


def test_a_broken_picture_is_named_and_the_run_goes_on_when_it_is_mended(pictures, tmp_path, capsys):
    (pictures / "list.csv").write_text("0.png,10\n1.png,20\nbroken.png,30\n")
    (pictures / "broken.png").write_bytes(b"no picture")
    command = COMMANDS["judge"].format(data=pictures / "list.csv", to=tmp_path).split()
    assert main(command) == 2
    assert "broken.png" in capsys.readouterr().err
    Image.new("RGB", (64, 64)).save(pictures / "broken.png")
    assert main(command) == 2, "three pictures are too few, but now all are read"
    assert "at least 20 pictures" in capsys.readouterr().err
