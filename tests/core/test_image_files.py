"""Finding picture files and streaming them: order, duplicates, bad input, bounded memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core import image_files
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.image_files import batches, find_images, natural_key, stream_images
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (16, 12), colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_a_folder_is_searched_recursively_in_natural_order(tmp_path):
    for name in ("b/img10.png", "b/img2.png", "a.jpg", "C.PNG", "b/.hidden.png", ".cache/x.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [p.relative_to(tmp_path).as_posix() for p in find_images([tmp_path])] == [
        "a.jpg",
        "b/img2.png",
        "b/img10.png",
        "C.PNG",
    ]


def test_inputs_keep_their_order_and_a_file_counts_once(tmp_path, monkeypatch):
    last, first = picture(tmp_path / "z.png"), picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert find_images([last, tmp_path, "a.png", "*.png"]) == [last, first]


def test_patterns(tmp_path):
    picture(tmp_path / "x" / "1.png")
    picture(tmp_path / "x" / "y" / "2.png")
    assert [p.name for p in find_images([tmp_path / "**" / "*.png"])] == ["1.png", "2.png"]
    assert [p.name for p in find_images([tmp_path / "?"])] == ["1.png", "2.png"]


def test_a_name_with_brackets_that_exists_is_a_file_not_a_pattern(tmp_path):
    odd = picture(tmp_path / "art [1].png")
    assert find_images([odd]) == [odd]


def test_a_named_file_may_have_any_extension(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    odd = tmp_path / "download"
    odd.write_bytes(buffer.getvalue())
    assert find_images([odd]) == [odd]


def test_list_file_is_taken_as_it_is(tmp_path, monkeypatch):
    a = picture(tmp_path / "a.png")
    listing = tmp_path / "list.txt"
    listing.write_text(f"\ufeff{a}\r\n\r\n{tmp_path / 'gone.png'}\r\n", encoding="utf-8")
    assert find_images(list_file=listing) == [a, tmp_path / "gone.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{a}\n"))
    assert find_images(list_file="-") == [a]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda tmp: find_images([]), BadInput, "at least one picture"),
        (lambda tmp: find_images([tmp]), BadInput, "pictures in the folder"),
        (lambda tmp: find_images([tmp / "nope.png"]), UnreadableFile, "no such file or folder"),
        (lambda tmp: find_images([tmp / "*.png"]), BadInput, "pictures that match"),
        (lambda tmp: find_images(list_file=tmp / "nope.txt"), UnreadableFile, "one path a line"),
        (lambda tmp: find_images(list_file=tmp), UnreadableFile, "one path a line"),
        (lambda tmp: next(stream_images([tmp], ahead=0)), BadInput, "ahead"),
        (lambda tmp: next(batches([], 0)), BadInput, "batch size"),
    ],
)
def test_bad_input_says_what_and_where(tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        make(tmp_path)


def test_an_empty_list_file_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(BadInput, match="empty list"):
        find_images(list_file=tmp_path / "empty.txt")


@settings(deadline=None)
@given(st.lists(st.text(max_size=8), max_size=8))
def test_natural_key_is_a_total_order(names):
    ordered = sorted(names, key=natural_key)
    assert [natural_key(n) for n in ordered] == sorted(natural_key(n) for n in names)


def test_natural_key_counts():
    assert sorted(["a10", "a9", "A1", "a2b"], key=natural_key) == ["A1", "a2b", "a9", "a10"]


def test_stream_keeps_order_and_gives_reasons(tmp_path):
    good = [picture(tmp_path / f"{i}.png", (10 + i, 9)) for i in range(7)]
    (tmp_path / "bad.png").write_bytes(good[0].read_bytes()[:40])
    paths = [*good[:3], tmp_path / "bad.png", tmp_path / "gone.png", *good[3:]]
    read = list(stream_images(paths, ahead=3))
    assert [item.path for item in read] == paths
    assert [item.index for item in read] == list(range(9))
    assert [item.reason is None for item in read] == [True] * 3 + [False] * 2 + [True] * 4
    assert read[4].reason == "no such file"
    assert read[0].image.shape == (3, 9, 10)


def watched(monkeypatch, paths, **options):
    """Stream and count the files that were decoded but not yet handed out, at their most."""
    submitted = []
    real = image_files._load
    monkeypatch.setattr(image_files, "_load", lambda path, index: (submitted.append(index), real(path, index))[1])
    most = 0
    for item in stream_images(paths, **options):
        most = max(most, len(submitted) - item.index)
    return most


def test_never_more_than_a_few_pictures_wait(tmp_path, monkeypatch):
    paths = [picture(tmp_path / f"{i}.png") for i in range(40)]
    assert watched(monkeypatch, paths, ahead=4) <= 5


def test_huge_pictures_wait_alone(tmp_path, monkeypatch):
    paths = [picture(tmp_path / f"{i}.png", (100, 100)) for i in range(6)]
    monkeypatch.setattr(image_files, "PIXELS_AHEAD", 15_000)
    assert watched(monkeypatch, paths, ahead=4) <= 2


def test_leaving_early_stops_the_reading(tmp_path, monkeypatch):
    paths = [picture(tmp_path / f"{i}.png") for i in range(40)]
    count = []
    real = image_files._load
    monkeypatch.setattr(image_files, "_load", lambda path, index: (count.append(index), real(path, index))[1])
    stream = stream_images(paths)
    next(stream)
    stream.close()
    assert len(count) <= 5


def test_batches_hold_a_number_of_images_and_of_pixels(tmp_path):
    sizes = [(10, 10)] * 5 + [(40, 40)] * 2 + [(10, 10)]
    paths = [picture(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)]
    groups = list(batches(stream_images([*paths, tmp_path / "gone.png"]), 3, pixels=2000))
    assert [[item.index for item in group] for group in groups] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [[item.index for item in g] for g in batches(stream_images(paths), 99, pixels=1600)] == [
        [0, 1, 2, 3, 4],
        [5],
        [6],
        [7],
    ]


def test_streamed_pixels_are_the_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (item,) = stream_images([tmp_path / "x.png"])
    assert torch.equal(item.image, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("standard_input", [True, False])
def test_a_list_parts_at_line_feeds_alone_and_drops_its_mark(tmp_path, monkeypatch, standard_input):
    odd = picture(tmp_path / "u\u2028sep.png")
    content = f"\ufeff{odd}\r\n{tmp_path / 'gone.png'}\n"
    listed = tmp_path / "list.txt"
    listed.write_bytes(content.encode())
    monkeypatch.setattr("sys.stdin", io.StringIO(content))
    assert find_images([], "-" if standard_input else listed) == [odd, tmp_path / "gone.png"]
