"""The door for picture files: every mode comes out as float32 RGB, and a damaged file is a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latent_critic.core.cv import cv2
from latent_critic.core.errors import UnreadableFile
from latent_critic.core.images import (
    finite_rows,
    load_image,
    picture_size,
    reason_unscorable,
    thumbnail,
    to_picture,
)
from PIL import Image

RGB = np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1).float() / 255


def saved(tmp_path, picture: Image.Image, name: str = "x.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_rgb(tmp_path):
    image = load_image(saved(tmp_path, Image.fromarray(RGB)))
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image, planes(RGB))


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_repeated(tmp_path, mode):
    grey = Image.fromarray(RGB).convert(mode)
    image = load_image(saved(tmp_path, grey))
    assert torch.equal(image, torch.from_numpy(np.array(grey.convert("L"))).float().div(255).expand(3, -1, -1))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_alpha_lies_on_white(tmp_path, mode):
    layer = Image.fromarray(np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]))
    layer.paste((0, 0, 0, 0), (0, 0, 5, 9))
    layer.paste((0, 0, 0, 128), (5, 0, 8, 9))
    options = {}
    if mode == "P":
        layer, options = (
            layer.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=255),
            {"transparency": 0},
        )
        hole = np.array(layer) == 0
    else:
        layer = layer.convert(mode)
        hole = np.array(layer.getchannel("A")) == 0
    image = load_image(saved(tmp_path, layer, **options))
    assert hole.any()
    assert bool((image[:, torch.from_numpy(hole)] == 1).all())
    if mode != "P":
        half = image[:, :, 5:8]
        assert torch.allclose(half, torch.full_like(half, 127 / 255), atol=1.5 / 255)


def test_palette(tmp_path):
    flat = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    assert torch.equal(load_image(saved(tmp_path, flat)), planes(np.array(flat.convert("RGB"))))


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bit_grey_keeps_its_steps(tmp_path, name):
    ramp = np.linspace(0, 65535, 9 * 14).reshape(9, 14).astype(np.uint16)
    assert cv2().imwrite(str(tmp_path / name), ramp)
    image = load_image(tmp_path / name)
    assert torch.allclose(image[1], torch.from_numpy(ramp.astype(np.float32) / 65535), atol=1e-6)
    assert len(image[0].unique()) == ramp.size
    small = thumbnail(tmp_path / name, 14)
    assert small.mode == "RGB"
    assert np.abs(np.asarray(small, dtype=float)[..., 0] - ramp / 257).max() <= 1


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bit_colour_is_read_to_eight_bits(tmp_path, name):
    deep = RGB.astype(np.uint16) * 257
    assert cv2().imwrite(str(tmp_path / name), deep[..., ::-1])
    assert torch.allclose(load_image(tmp_path / name), planes(RGB), atol=1 / 255)


def test_float_grey(tmp_path):
    ramp = np.linspace(0, 1, 126, dtype=np.float32).reshape(9, 14)
    image = load_image(saved(tmp_path, Image.fromarray(ramp), "x.tif"))
    assert torch.allclose(image[2], torch.from_numpy(ramp))


def test_cmyk(tmp_path):
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = load_image(saved(tmp_path, picture, "x.jpg", quality=95))
    assert image[0].min() > 0.9
    assert image[1:].max() < 0.1


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = Image.fromarray(RGB)
    path = saved(tmp_path, picture, exif=exif)
    by_hand = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).transpose(1, 0, 2), 8: np.rot90(RGB),
    }[turn]  # fmt: skip
    assert torch.equal(load_image(path), planes(by_hand))
    assert thumbnail(path, 99).size == (by_hand.shape[1], by_hand.shape[0])
    assert picture_size(path) == (14, 9)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "lime", "blue")]
    for name in ("x.gif", "x.webp", "x.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        image = load_image(tmp_path / name)
        assert image[0].min() > 0.97, name
        assert image[1:].max() < 0.03, name


@pytest.mark.parametrize("size", [(1, 1), (16, 256), (256, 16)])
def test_extreme_shapes_load_and_tiny_ones_carry_a_reason(tmp_path, size):
    image = load_image(saved(tmp_path, Image.new("RGB", size, "white")))
    assert image.shape == (3, size[1], size[0])
    reason = reason_unscorable(image)
    assert (reason is None) == (min(size) >= 8)
    assert reason is None or "1×1 pixels" in reason


def test_eight_thousand_pixels(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (8000, 8000), "navy"), "huge.jpg")
    image = load_image(path)
    assert image.shape == (3, 8000, 8000)
    assert thumbnail(path, 100).size == (100, 100)


def test_a_decompression_bomb_is_a_reason(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (200, 200)))
    for limit in (30_000, 10_000):  # a warning (an error under these tests' filters), then Pillow's own refusal
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UnreadableFile, match="DecompressionBomb"):
            load_image(path)


def test_missing_and_wrong_files(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    for name, words in (
        ("gone.png", "no such file"),
        ("text.png", "no picture format"),
        ("empty.jpg", "an empty file"),
    ):
        with pytest.raises(UnreadableFile, match=words):
            load_image(tmp_path / name)
    with pytest.raises(UnreadableFile):
        load_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_refused(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UnreadableFile):
        load_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused_and_nothing_else(tmp_path, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind, **({"exif": exif} if kind in {"PNG", "JPEG", "WEBP", "TIFF"} else {}))
    content = bytearray(buffer.getvalue())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        content[place] = byte
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = load_image(path)
    except UnreadableFile:
        return
    assert image.shape[0] == 3
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_to_picture_is_the_way_back(tmp_path):
    assert np.array_equal(np.asarray(to_picture(planes(RGB))), RGB)
    assert to_picture(torch.full((3, 40, 20), float("nan")), side=10).size == (5, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found(value):
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    rows = image.expand(4, -1, -1, -1).clone()
    rows[1, 2, 19, 29] = value
    rows[2, 0, 0, :2] = torch.tensor([value, -value])
    assert finite_rows(rows).tolist() == [True, False, False, True]
    assert [reason_unscorable(row) is None for row in rows] == [True, False, False, True]
    assert "NaN or infinite" in str(reason_unscorable(rows[1]))


def test_rows_whose_sum_leaves_the_range_are_finite():
    assert finite_rows(torch.full((2, 3, 4, 4), 3e38)).tolist() == [True, True]
