"""`score` and `rank`: what is printed, what is written, the exit codes."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from latent_critic.core.cli import scoring
from latent_critic.core.cli.scoring import ScoreRequest, score_files
from latent_critic.core.export import COLUMNS, from_csv
from PIL import Image


def test_score_prints_one_line_a_picture_in_order(cli, scorer, greys, tmp_path):
    paths = greys(40, 80, 20)
    code, out, err = cli("score", tmp_path / "pics")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["40.0", str(paths[0])],
        ["80.0", str(paths[1])],
        ["20.0", str(paths[2])],
    ]
    assert "calibrated on brightness" in err


def test_every_machine_readable_form_says_the_same(cli, scorer, greys, tmp_path):
    paths = greys(40, 80)
    (tmp_path / "pics" / "zbad.png").write_bytes(b"no picture")
    forms = {form: tmp_path / "deep" / f"s.{form}" for form in ("json", "csv", "jsonl")}
    code, _, err = cli(
        "score", tmp_path / "pics", *(part for form, path in forms.items() for part in (f"--{form}", path))
    )
    assert code == 1
    rows = json.loads(forms["json"].read_text(encoding="utf-8"))
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert [row["path"] for row in rows] == [*map(str, paths), str(tmp_path / "pics" / "zbad.png")]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert [row["score"] for row in rows] == [pytest.approx(40, abs=0.3), pytest.approx(80, abs=0.3), None]
    assert rows[0]["reason"] is None
    assert "no picture format" in rows[2]["reason"]
    assert {(row["scorer"], tuple(row["scale"]), row["direction"]) for row in rows} == {("judge", (0, 100), "higher")}
    assert from_csv(forms["csv"].read_text(encoding="utf-8")) == rows
    assert [json.loads(line) for line in forms["jsonl"].read_text(encoding="utf-8").splitlines()] == rows
    assert "1 of 3 pictures have no score" in err
    assert "zbad.png" in err


@pytest.mark.parametrize("form", ["json", "csv", "jsonl"])
def test_dash_prints_that_form_and_nothing_else(cli, scorer, greys, form):
    paths = greys(40, 80)
    code, out, err = cli("score", *paths, f"--{form}", "-")
    assert code == 0
    read = {"json": json.loads, "csv": from_csv, "jsonl": lambda text: [json.loads(line) for line in text.splitlines()]}
    assert [row["path"] for row in read[form](out)] == [str(path) for path in paths]
    assert err


def test_rank_lists_best_first_and_its_ends(cli, scorer, greys, tmp_path):
    paths = greys(40, 80, 20, 60, 10)
    order = [str(paths[place]) for place in (1, 3, 0, 2, 4)]
    _, out, _ = cli("rank", tmp_path / "pics")
    assert [line.split()[2] for line in out.splitlines()] == order
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4", "5"]
    _, out, _ = cli("rank", tmp_path / "pics", "--top", 1, "--bottom", 2)
    lines = out.splitlines()
    assert [line.split()[-1] for line in (lines[0], *lines[2:])] == [order[0], *order[3:]]
    assert "2 between" in lines[1]
    _, out, _ = cli("rank", tmp_path / "pics", "--bottom", 2)
    assert [line.split()[-1] for line in out.splitlines()] == order[3:]
    _, out, _ = cli("rank", tmp_path / "pics", "--top", 9)
    assert len(out.splitlines()) == 5
    _, out, _ = cli("rank", tmp_path / "pics", "--json", "-")
    assert [row["path"] for row in json.loads(out)] == order


def test_a_picture_that_cannot_be_scored_comes_last_with_its_reason(cli, scorer, greys, tmp_path):
    greys(40)
    Image.new("RGB", (1, 1)).save(tmp_path / "pics" / "a_tiny.png")
    code, out, err = cli("rank", tmp_path / "pics")
    assert code == 1
    assert out.splitlines()[1].split()[:2] == ["–", "–"]
    assert "1×1 pixels" in err


@pytest.mark.parametrize("command", ["score", "rank"])
def test_the_denoisers_calls_are_told_by_a_scorer_that_counts_them(cli, scorer, greys, monkeypatch, command):
    paths = greys(40, 80, 20)
    assert "denoiser calls" not in cli(command, *paths)[2]
    plain = scorer.score

    def counted(images, *rest, **named):
        batch = plain(images, *rest, **named)
        told = (replace(score, attributes={"denoiser_calls": 4 * (2 + score.index)}) for score in batch)
        return replace(batch, scores=tuple(told))

    monkeypatch.setattr(scorer, "score", counted)
    code, out, err = cli(command, *paths)
    assert code == 0
    assert "3 pictures, 36 denoiser calls" in err.splitlines()
    assert "denoiser calls" not in out


def test_contact_sheet_is_a_picture_of_the_pictures(cli, scorer, greys, tmp_path):
    greys(10, 90, 50)
    (tmp_path / "pics" / "bad.png").touch()
    code, _, _ = cli("rank", tmp_path / "pics", "--contact-sheet", tmp_path / "sheet.png")
    assert code == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 256
    _, _, _ = cli("rank", tmp_path / "pics", "--contact-sheet", tmp_path / "few.png", "--sheet-cells", 2)
    with Image.open(tmp_path / "few.png") as few:
        assert few.width * few.height < sheet.width * sheet.height


def test_batch_size_changes_no_score_and_bounds_the_batch(cli, scorer, greys):
    paths = greys(*range(0, 100, 9))
    _, one, _ = cli("score", *paths, "--batch", 1, "--json", "-")
    assert max(scorer.batches) == 1
    _, many, _ = cli("score", *paths, "--batch", 5, "--json", "-")
    assert max(scorer.batches) == 5
    assert one == many


def test_out_of_memory_falls_back_to_halves(scorer, greys, monkeypatch):
    paths = greys(10, 20, 30, 40, 50)
    real = scorer.score

    def score(images, **rest):
        if len(images) > 1:
            raise MemoryError
        return real(images, **rest)

    monkeypatch.setattr(scorer, "score", score)
    batch = score_files(ScoreRequest(tuple(map(str, paths))))
    assert [round(value) for value in batch.values()] == [10, 20, 30, 40, 50]
    assert [score.index for score in batch] == [0, 1, 2, 3, 4]
    monkeypatch.setattr(scorer, "score", lambda images: (_ for _ in ()).throw(MemoryError("too big")))
    assert {score.reason for score in score_files(ScoreRequest(tuple(map(str, paths))))} == {"out of memory: too big"}


def test_a_list_names_files_and_missing_ones_get_a_reason(cli, scorer, greys, tmp_path):
    paths = greys(40)
    (tmp_path / "list.txt").write_text(f"{paths[0]}\n{tmp_path / 'gone.png'}\n")
    code, out, _ = cli("score", "--list", tmp_path / "list.txt", "--json", "-")
    assert code == 1
    assert [row["reason"] for row in json.loads(out)] == [None, "no such file"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least one picture"),
        (["nowhere.png"], "no such file or folder"),
        (["{empty}"], "pictures in the folder"),
        (["{pics}", "--scorer", "no_such"], "a method of"),
        (["{pics}", "--scorer", "lgdm", "--model", "mine"], "with --head; latent-critic fit-head makes one"),
        (["{pics}", "--scorer", "dp_iqa", "--model", "mine"], "latent-critic train dp-iqa makes one"),
        (["{pics}", "--scorer", "genziqa", "--model", "mine"], "latent-critic train genziqa makes one"),
        (["{pics}", "--scorer", "lgdm", "--head", "gone.safetensors"], "gone.safetensors"),
        (["{pics}", "--head", "my.safetensors"], "--head with --scorer lgdm, genziqa, dp_iqa"),
        (["{pics}", "--scorer", "zero_shot", "--head", "my.safetensors"], "--head with --scorer lgdm"),
        (["{pics}", "--comfyui", "{empty}"], "a ComfyUI folder"),
        (["{pics}", "--scorer", "diff_v2_iqa", "--head", "gone.safetensors"], "gone.safetensors"),
        (["{pics}", "--device", "cuda:99"], "device"),
        (["{pics}", "--device", "toaster"], "device"),
        (["{pics}", "--device", "meta"], "device"),
        (["{pics}", "--device", "hpu"], "device"),
        (["{pics}", "--device", "vulkan"], "device"),
        (["{pics}", "--batch", "0"], "--batch"),
        (["{pics}", "--json", "-", "--csv", "-"], "different output"),
        (["{pics}", "--csv", "{empty}"], "a file name for the output"),
        (["{pics}", "--csv", "{pics}/p0.png/x.csv"], "a folder for"),
        (["{pics}", "--contact-sheet", "-"], "Name a PNG"),
        (["{pics}", "--contact-sheet", "sheet.jpg"], "Name a PNG"),
        (["--json", "{pics}/p0.png"], "file name for text"),
        (["--json", "{pics}"], "name inputs first"),
        (["{pics}", "--contact-sheet", "s.png", "--sheet-cells", "0"], "--sheet-cells"),
    ],
)
@pytest.mark.parametrize("command", ["score", "rank"])
def test_bad_input_is_one_line_and_code_two(cli, greys, tmp_path, command, arguments, words):
    greys(50)
    (tmp_path / "empty").mkdir()
    filled = [part.format(empty=tmp_path / "empty", pics=tmp_path / "pics") for part in arguments]
    code, out, err = cli(command, *filled)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--top", "--bottom"])
def test_rank_refuses_to_list_none(cli, greys, tmp_path, option):
    greys(50)
    code, _, err = cli("rank", tmp_path / "pics", option, 0)
    assert code == 2
    assert option in err


def test_a_full_disk_leaves_the_old_file(cli, scorer, greys, tmp_path, monkeypatch):
    greys(50)
    old = tmp_path / "scores.csv"
    old.write_text("old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, err = cli("score", tmp_path / "pics", "--csv", old)
    assert code == 1
    assert "No space left on device" in err
    assert str(old) in err
    assert "Free some room" in err
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pics", "scores.csv"]


def test_interrupt_is_clean(cli, greys, tmp_path, monkeypatch):
    greys(50)
    monkeypatch.setattr(scoring, "load_scorer", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = cli("score", tmp_path / "pics")
    assert code == 130
    assert err == "latent-critic: interrupted\n"


def test_a_contact_sheet_never_replaces_a_picture(cli, scorer, greys, tmp_path):
    """`--contact-sheet pics/*.png`: the shell hands the first picture to the option."""
    paths = greys(10, 90)
    before = [path.read_bytes() for path in paths]
    code, out, err = cli("rank", "--contact-sheet", *paths)
    assert (code, out) == (2, "")
    assert "Nothing was overwritten" in err
    assert [path.read_bytes() for path in paths] == before
    assert scorer.seen == 0


def test_an_earlier_sheet_is_replaced_and_not_scored(cli, scorer, greys, tmp_path):
    greys(10, 90)
    sheet = tmp_path / "pics" / "a_sheet.png"
    for _ in range(2):
        code, out, _ = cli("rank", tmp_path / "pics", "--contact-sheet", sheet)
        assert code == 0
        assert len(out.splitlines()) == 2
    assert sheet.exists()


def test_a_place_where_no_sheet_can_go_is_refused_before_scoring(cli, scorer, greys, tmp_path):
    paths = greys(10)
    code, _, err = cli("rank", *paths, "--contact-sheet", paths[0] / "sheet.png")
    assert code == 2
    assert "a folder for sheet.png" in err
    assert scorer.seen == 0


def test_two_names_of_one_output_are_refused(cli, scorer, greys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("score", *greys(10), "--json", "a.csv", "--csv", "./a.csv")
    assert code == 2
    assert "different output" in err


def test_a_reader_that_leaves_costs_no_file_and_no_exit_code(greys, tmp_path):
    """`latent-critic score … --csv out.csv | head -1`, with a picture that fails."""
    greys(*range(5), folder="pics")
    (tmp_path / "pics" / "bad.png").write_bytes(b"?")
    command = [sys.executable, "-c", "import sys; from latent_critic.core.cli.main import main; sys.exit(main())"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [*command, "score", str(tmp_path / "pics"), "--csv", str(tmp_path / "out.csv"), "--device", "cpu"],
            stdout=pipe, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(from_csv((tmp_path / "out.csv").read_text(encoding="utf-8"))) == 6


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights there")
def test_a_link_that_leads_to_itself_is_a_failed_picture(cli, scorer, greys, tmp_path):
    greys(10)
    loop = tmp_path / "pics" / "loop.png"
    loop.symlink_to(loop)
    code, _, err = cli("rank", tmp_path / "pics", "--contact-sheet", tmp_path / "s.png")
    assert code == 1
    assert "loop.png" in err
    code, _, err = cli("reject", tmp_path / "pics", "--out", tmp_path / "pics", "--top-k", 1)
    assert code == 1


def test_memory_of_the_processor_that_runs_out_is_a_reason(scorer, greys, monkeypatch):
    paths = greys(10, 20)
    words = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    real = scorer.score

    def score(images, **rest):
        if len(images) > 1 or float(images[0].mean()) > 0.15:
            raise RuntimeError(words)
        return real(images, **rest)

    monkeypatch.setattr(scorer, "score", score)
    first, second = score_files(ScoreRequest(tuple(map(str, paths))))
    assert first.ok
    assert second.reason.startswith("out of memory")
    monkeypatch.setattr(scorer, "score", lambda images: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        score_files(ScoreRequest(tuple(map(str, paths))))


def test_a_folder_that_may_not_be_read_is_a_failure(cli, scorer, greys, tmp_path, monkeypatch):
    greys(10)
    greys(20, folder="pics/locked")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, _, err = cli("score", tmp_path / "pics", "--csv", tmp_path / "s.csv")
    assert code == 1
    assert "locked: a folder" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_pipe_is_a_failed_picture_and_does_not_hang(cli, scorer, greys, tmp_path):
    greys(10)
    os.mkfifo(tmp_path / "pics" / "x.png")
    code, _, err = cli("score", tmp_path / "pics")
    assert code == 1
    assert "x.png: a pipe or device" in err


def test_a_decoder_that_lacks_a_format_fails_one_picture(cli, scorer, greys, tmp_path):
    """A DDS file of an unknown four-letter code makes Pillow raise NotImplementedError."""
    (path,) = greys(10)
    heading = struct.pack("<7I", 124, 0x1007, 64, 64, 0, 0, 0) + bytes(44)
    heading += struct.pack("<II4s5I", 32, 0x4, b"ZZZZ", 0, 0, 0, 0, 0) + struct.pack("<5I", 0x1000, 0, 0, 0, 0)
    (tmp_path / "odd.png").write_bytes(b"DDS " + heading + bytes(5000))
    code, out, err = cli("score", path, tmp_path / "odd.png", "--json", "-")
    assert code == 1
    assert [row["reason"] is None for row in json.loads(out)] == [True, False]
    assert "NotImplementedError" in err
