"""`reject`: files go where the policy says, nothing is overwritten, lost or half-written."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest
from latent_critic.core.cli import buckets, plan
from latent_critic.core.cli.buckets import destination, put
from latent_critic.core.errors import UnwritableFile


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def report(out: Path) -> list[dict[str, str]]:
    with (out / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_copies_into_buckets_and_reports(cli, scorer, greys, tmp_path):
    paths = greys(40, 80, 20)
    out = tmp_path / "sorted"
    code, text, err = cli("reject", tmp_path / "pics", "--out", out, "--threshold", 35)
    assert code == 0
    assert names(out / "kept") == ["p0.png", "p1.png"]
    assert names(out / "rejected") == ["p2.png"]
    assert (out / "kept" / "p1.png").read_bytes() == paths[1].read_bytes()
    assert all(path.exists() for path in paths)
    assert "threshold 35" in text
    assert "2 of 3 kept" in err
    rows = report(out)
    assert [(row["bucket"], row["rank"], Path(row["path"]).name) for row in rows] == [
        ("kept", "1", "p1.png"),
        ("kept", "2", "p0.png"),
        ("rejected", "3", "p2.png"),
    ]
    assert {Path(row["destination"]).exists() for row in rows} == {True}


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (["--top-k", "1"], ["p1.png"]),
        (["--percentile", "50"], ["p0.png", "p1.png"]),
        (["--threshold", "99", "--floor", "1"], ["p1.png"]),
        (["--cap", "1"], ["p1.png"]),
        (["--threshold", "99"], []),
    ],
)
def test_policies(cli, scorer, greys, tmp_path, rule, kept):
    greys(40, 80, 20)
    code, _, _ = cli("reject", tmp_path / "pics", "--out", tmp_path / "o", *rule)
    assert code == 0
    assert names(tmp_path / "o" / "kept") == kept
    assert len(names(tmp_path / "o" / "rejected")) == 3 - len(kept)


def test_move_takes_the_old_names_away(cli, scorer, greys, tmp_path):
    paths = greys(40, 80)
    contents = {path.name: path.read_bytes() for path in paths}
    cli("reject", tmp_path / "pics", "--out", tmp_path / "o", "--top-k", 1, "--move")
    assert names(tmp_path / "pics") == []
    assert (tmp_path / "o" / "kept" / "p1.png").read_bytes() == contents["p1.png"]
    assert (tmp_path / "o" / "rejected" / "p0.png").read_bytes() == contents["p0.png"]


def test_dry_run_touches_nothing(cli, scorer, greys, tmp_path):
    greys(40, 80)
    code, out, err = cli(
        "reject", tmp_path / "pics", "--out", tmp_path / "o", "--top-k", 1, "--dry-run", "--json", tmp_path / "r.json"
    )
    assert code == 0
    assert names(tmp_path) == ["pics", "r.json"]
    assert [row["bucket"] for row in json.loads((tmp_path / "r.json").read_text())] == ["kept", "rejected"]
    assert "would be" in err
    assert out.startswith("kept")


def test_same_names_and_earlier_files_stay_apart(cli, scorer, greys, tmp_path):
    greys(40, folder="a")
    greys(80, folder="b")
    kept = tmp_path / "o" / "kept"
    kept.mkdir(parents=True)
    (kept / "p0.png").write_text("someone else's")
    cli("reject", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "o", "--threshold", 1)
    assert names(kept) == ["p0-2.png", "p0-3.png", "p0.png"]
    assert (kept / "p0.png").read_text() == "someone else's"
    assert (kept / "p0-2.png").read_bytes() == (tmp_path / "b" / "p0.png").read_bytes()
    assert (kept / "p0-3.png").read_bytes() == (tmp_path / "a" / "p0.png").read_bytes()


def test_running_again_copies_nothing_twice_and_keeps_both_reports(cli, scorer, greys, tmp_path):
    greys(40, 40, 80)
    for _ in range(2):
        assert cli("reject", tmp_path / "pics", "--out", tmp_path / "o", "--top-k", 2)[0] == 0
    assert len(names(tmp_path / "o" / "kept")) + len(names(tmp_path / "o" / "rejected")) == 3
    assert names(tmp_path / "o") == ["kept", "rejected", "report-2.csv", "report.csv"]


def test_its_own_folder_inside_the_input_is_left_out(cli, scorer, greys, tmp_path):
    greys(40, 80)
    out = tmp_path / "pics" / "sorted"
    for _ in range(2):
        _, text, _ = cli("reject", tmp_path / "pics", "--out", out, "--top-k", 1)
        assert len(text.splitlines()) == 2
    code, _, err = cli("reject", out, "--out", out, "--top-k", 1)
    assert code == 2
    assert "outside" in err


def test_unreadable_pictures_are_rejected_with_the_reason_and_code_one(cli, scorer, greys, tmp_path):
    greys(40)
    (tmp_path / "pics" / "bad.png").write_bytes(b"?")
    (tmp_path / "list").write_text(f"{tmp_path / 'pics' / 'p0.png'}\n{tmp_path / 'pics' / 'bad.png'}\n/gone.png\n")
    code, out, err = cli(
        "reject", "--list", tmp_path / "list", "--out", tmp_path / "o", "--threshold", 1, "--json", "-"
    )
    assert code == 1
    assert names(tmp_path / "o" / "rejected") == ["bad.png"]
    rows = json.loads(out)
    assert [row["bucket"] for row in rows] == ["kept", "rejected", "rejected"]
    assert rows[2]["destination"] is None
    assert "not scored" in rows[1]["why"]
    assert "/gone.png" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "at least one rule"),
        (["--floor", "2"], "at least one rule"),
        (["--threshold", "101"], "a threshold from 0 to 100"),
        (["--threshold", "nan"], "finite"),
        (["--top-k", "0"], "top k"),
        (["--percentile", "101"], "percentile"),
        (["--cap", "1", "--floor", "2"], "cap"),
    ],
)
def test_bad_rules(cli, scorer, greys, tmp_path, arguments, words):
    greys(40)
    code, _, err = cli("reject", tmp_path / "pics", "--out", tmp_path / "o", *arguments)
    assert code == 2
    assert words in err
    assert not (tmp_path / "o").exists()


def test_an_out_that_is_a_file_is_refused(cli, scorer, greys, tmp_path):
    (path,) = greys(40)
    code, _, err = cli("reject", path, "--out", path, "--top-k", 1)
    assert code == 2
    assert "a folder for --out" in err


def test_out_is_required():
    from latent_critic.core.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["reject", "x"])
    assert left.value.code == 2


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_put_is_whole_or_absent(tmp_path, monkeypatch, move, links):
    source, target = tmp_path / "a.png", tmp_path / "to" / "a.png"
    source.write_bytes(b"x" * 1000)
    if not links:
        monkeypatch.setattr(buckets.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    put(source, target, move)
    assert target.read_bytes() == b"x" * 1000
    assert source.exists() is not move
    assert names(target.parent) == ["a.png"]


def test_a_full_disk_keeps_the_source_and_leaves_nothing_half(tmp_path, monkeypatch):
    source, target = tmp_path / "a.png", tmp_path / "to" / "a.png"
    source.write_bytes(b"x")
    monkeypatch.setattr(buckets.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    monkeypatch.setattr(buckets.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(UnwritableFile, match="disk full"):
        put(source, target, move=True)
    assert source.read_bytes() == b"x"
    assert names(target.parent) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path, monkeypatch, links):
    source, target = tmp_path / "a.png", tmp_path / "to" / "a.png"
    source.write_bytes(b"x")
    target.parent.mkdir()
    target.write_bytes(b"other")
    if not links:
        monkeypatch.setattr(buckets.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "cross-device")))
    with pytest.raises(UnwritableFile):
        put(source, target, move=True)
    assert (source.read_bytes(), target.read_bytes()) == (b"x", b"other")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights there")
def test_a_link_is_moved_as_its_picture(tmp_path):
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"x")
    link.symlink_to(real)
    put(link, tmp_path / "o" / "link.png", move=True)
    assert not (tmp_path / "o" / "link.png").is_symlink()
    assert real.exists()
    assert not link.exists()


def test_destination_finds_a_free_or_equal_name(tmp_path):
    source = tmp_path / "s" / "a.png"
    source.parent.mkdir()
    source.write_bytes(b"x")
    (tmp_path / "a.png").write_bytes(b"other")
    assert destination(source, tmp_path, set()) == tmp_path / "a-2.png"
    (tmp_path / "a-2.png").write_bytes(b"x")
    assert destination(source, tmp_path, set()) == tmp_path / "a-2.png"
    assert destination(source, tmp_path, {tmp_path / "a-2.png"}) == tmp_path / "a-3.png"


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("fault", [0, 1, 2, 3])
def test_a_run_that_was_cut_short_is_finished_by_its_own_plan(cli, scorer, greys, tmp_path, monkeypatch, move, fault):
    """Top k over what is left would keep others: the same command again must keep what the first one chose."""
    greys(10, 90, 50, 70)
    out = tmp_path / "o"
    command = ["reject", tmp_path / "pics", "--out", out, "--top-k", 2, *(["--move"] if move else [])]
    calls = []

    def flaky(source, target, moves):
        calls.append(target)
        if len(calls) > fault:
            raise UnwritableFile("to move", "disk full", "Run the same command again to go on.")
        put(source, target, moves)

    monkeypatch.setattr(plan, "put", flaky)
    assert cli(*command)[0] == 1
    assert not (out / "report.csv").exists()
    monkeypatch.setattr(plan, "put", put)
    seen = scorer.seen
    code, _, err = cli(*command)
    assert code == 0
    assert "cut short" in err
    assert scorer.seen == seen
    assert names(out / "kept") == ["p1.png", "p3.png"]
    assert names(out / "rejected") == ["p0.png", "p2.png"]
    assert names(tmp_path / "pics") == ([] if move else ["p0.png", "p1.png", "p2.png", "p3.png"])
    assert names(out) == ["kept", "rejected", "report.csv"]
    assert [row["rank"] for row in report(out)] == ["1", "2", "3", "4"]


def test_a_file_of_the_plans_name_that_is_none_is_refused(cli, scorer, greys, tmp_path):
    greys(10)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "unfinished-move.csv").write_text("something else")
    code, _, err = cli("reject", tmp_path / "pics", "--out", tmp_path / "o", "--top-k", 1)
    assert code == 2
    assert "plan of a reject run" in err


def test_another_rule_never_leaves_a_picture_in_both_buckets(cli, scorer, greys, tmp_path):
    greys(40, 80, 20)
    out = tmp_path / "o"
    assert cli("reject", tmp_path / "pics", "--out", out, "--top-k", 1)[0] == 0
    code, _, err = cli("reject", tmp_path / "pics", "--out", out, "--top-k", 2)
    assert code == 2
    assert "Nothing was copied" in err
    assert names(out / "kept") == ["p1.png"]
    assert names(out / "rejected") == ["p0.png", "p2.png"]


def test_out_may_be_the_inputs_folder_or_its_parent(cli, scorer, greys, tmp_path):
    greys(40, 80)
    for out in (tmp_path, tmp_path / "pics"):
        for _ in range(2):
            code, text, _ = cli("reject", tmp_path / "pics", "--out", out, "--top-k", 1)
            assert code == 0
            assert len(text.splitlines()) == 2
        assert names(out / "kept") == ["p1.png"]
