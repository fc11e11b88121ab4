"""The contact sheet: where pictures, bars and texts lie, and how little memory huge pictures take."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.contact_sheet import Mark, Titles, best_and_worst, colour, contact_sheet
from latent_critic.core.errors import BadInput
from PIL import Image


def blocks(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), name) for name in colours]


def count(sheet: Image.Image, ink: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == ink).all(axis=2).sum())


def test_every_picture_is_on_the_sheet_once_in_order():
    sheet = contact_sheet(blocks("red", "lime", "blue"), ["a", "b", "c"], columns=2, cell=64)
    pixels = np.asarray(sheet).astype(int)
    for ink in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert count(sheet, ink) == 64 * 64
    places = [np.argwhere((pixels == ink).all(axis=2)).mean(axis=0) for ink in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert places[0][0] == places[1][0] < places[2][0]
    assert places[0][1] == places[2][1] < places[1][1]


def test_the_bar_grows_with_the_score():
    lengths = []
    for fraction in (0.1, 0.5, 0.9):
        sheet = contact_sheet(blocks("black"), [""], cell=200, marks=[Mark(fraction)])
        lengths.append(count(sheet, colour(fraction)))
    assert 0 < lengths[0] < lengths[1] < lengths[2]


def test_an_unscored_picture_is_dimmed_and_captioned():
    plain = contact_sheet(blocks("red"), ["x"], cell=64)
    crossed = contact_sheet(blocks("red"), ["x"], cell=64, marks=[Mark(crossed=True)])
    assert count(plain, (255, 0, 0)) == 64 * 64
    assert count(crossed, (255, 0, 0)) == 0
    assert contact_sheet([None], ["unreadable"], cell=64, marks=[Mark(crossed=True)]).size == plain.size


def test_texts_are_drawn_and_titles_take_room():
    bare = contact_sheet(blocks("black"), [""], cell=128)
    named = contact_sheet(blocks("black"), ["62.1"], cell=128)
    assert bare.size == named.size
    assert np.abs(np.asarray(bare).astype(int) - np.asarray(named)).sum() > 0
    titled = contact_sheet(
        blocks("black"), ["62.1"], cell=128, titles=Titles("Heading", "note", columns=["one"], rows=["row"])
    )
    assert titled.height > named.height
    assert titled.width == named.width


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_any_mode_of_picture(mode):
    assert contact_sheet([Image.new(mode, (300, 40))], ["x"], cell=64).mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (640, 40)])
def test_any_shape_of_picture(size):
    assert contact_sheet([Image.new("RGB", size)], ["x"], cell=64).width < 100


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_caption_fits_its_cell(text):
    sheet = np.asarray(contact_sheet(blocks("black", "black"), [text.replace("\n", " "), ""], columns=2, cell=64))
    bare = np.asarray(contact_sheet(blocks("black", "black"), ["", ""], columns=2, cell=64))
    half = bare.shape[1] // 2 + 2
    assert np.array_equal(sheet[:, half:], bare[:, half:])


def test_long_rankings_show_their_ends():
    assert best_and_worst([3, 1, 2], 3) == ([3, 1, 2], "")
    shown, note = best_and_worst(range(100), 5)
    assert shown == [0, 1, 2, 98, 99]
    assert "best 3" in note
    assert "95" in note


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: contact_sheet([], []), "at least one picture"),
        (lambda: contact_sheet(blocks("red"), []), "captions"),
        (lambda: contact_sheet(blocks("red"), ["x"], marks=[]), "marks"),
        (lambda: contact_sheet(blocks("red"), ["x"], columns=0), "column"),
        (lambda: contact_sheet(blocks("red"), ["x"], cell=4), "16 pixels"),
        (lambda: contact_sheet(blocks("red") * 100, ["x"] * 100, cell=2000), "pixels"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(BadInput, match=words):
        call()


def test_neither_torch_nor_numpy_is_loaded(tmp_path):
    code = "import sys, latent_critic.core.contact_sheet, latent_critic.core.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
