"""Heat maps: sums are kept wherever grids lie, places are found where they are, pictures can be read."""

import numpy as np
import pytest
import torch
from latent_critic.core.errors import BadInput
from latent_critic.core.heatmap import HeatMap, Part, badness, coloured, overlay


def grid(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heat_map(*parts, height=96, width=160, **more):
    return HeatMap(tuple(parts), 0.5, height, width, lambda raw: 100 * torch.sigmoid(raw), (0.0, 100.0), **more)


PARTS = (
    Part(grid(12, 20), 0, 0, 96, 160, "whole"),
    Part(grid(3, 5, 1), 0, 0, 96, 160, "coarse"),
    Part(grid(16, 16, 2), 0, 0, 64, 64, "crops"),
    Part(grid(16, 16, 3), 32, 96, 64, 64, "crops"),
    Part(grid(1, 1, 4), 10, 3, 40, 7, "one cell"),
    Part(grid(32, 32, 5), 0, 0, 256, 256, "mirrored"),
)


@pytest.mark.parametrize("shape", [(6, 10), (20, 33), (96, 160), (1, 1), (5, 1)])
def test_pouring_keeps_the_sum(shape):
    found = heat_map(*PARTS)
    assert float(found.density(*shape).sum()) == pytest.approx(found.total - 0.5, abs=1e-9)


def test_total_and_score():
    found = heat_map(*PARTS)
    total = 0.5 + sum(float(part.values.sum()) for part in PARTS)
    assert found.total == pytest.approx(total)
    assert found.score == pytest.approx(100 / (1 + np.exp(-total)))


def test_a_cell_lands_in_its_place():
    values = torch.zeros(12, 20, dtype=torch.float64)
    values[3, 15] = 1.0
    found = heat_map(Part(values, 0, 0, 96, 160)).density(12, 20)
    assert divmod(int(found.argmax()), 20) == (3, 15)
    assert float(found[2:5, 14:17].sum()) == pytest.approx(1.0)


def test_what_lies_beyond_the_border_is_mirrored_back():
    values = torch.zeros(4, 1, dtype=torch.float64)
    values[3] = 1.0  # pixels 192 to 256 of a picture of 96: the mirror image of 0 to 64, not of its end
    found = heat_map(Part(values, 0, 0, 256, 160)).density(3, 1)[:, 0]
    assert found[0] > found[2]
    assert float(found.sum()) == pytest.approx(1.0)


def test_an_even_map_is_even():
    even = torch.full((12, 20), 1.0 / 240, dtype=torch.float64)
    halves = [Part(torch.full((8, 8), 0.5 / 64, dtype=torch.float64), 0, left, 96, 96, "crops") for left in (0.0, 64.0)]
    found = heat_map(Part(even, 0, 0, 96, 160, "whole"), *halves)
    local = found.local()
    assert local.shape == found.grid(20) == (20, 33)
    expected = 100 / (1 + np.exp(-2.5))
    assert local.numpy() == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("higher", [True, False])
def test_the_worst_place(higher):
    values = torch.zeros(12, 20, dtype=torch.float64)
    values[6:9, 2:6] = -1.0 if higher else 1.0
    found = heat_map(Part(values, 0, 0, 96, 160), higher_is_better=higher)
    left, top, width, height = found.worst(0.05)
    assert abs(left + width / 2 - 32) <= 8
    assert abs(top + height / 2 - 60) <= 8
    assert width * height == pytest.approx(0.05 * 96 * 160, rel=0.25)
    mask = badness(found)
    assert mask.shape == (96, 160)
    assert float(mask[60, 32]) > float(mask[20, 120]) + 0.2
    assert 0 <= float(mask.min()) <= float(mask.max()) <= 1


def test_the_worst_place_lies_inside_the_picture():
    for seed in range(8):
        found = heat_map(Part(grid(9, 7, seed), 0, 0, 97, 61), height=97, width=61)
        for share in (0.001, 0.1, 1.0):
            left, top, width, height = found.worst(share)
            assert left >= 0 <= top
            assert 0 < left + width <= 61 + 1
            assert 0 < top + height <= 97 + 1
    with pytest.raises(BadInput, match="a share"):
        found.worst(0.0)


@pytest.mark.parametrize("scale", [(0.0, 100.0), None])
@pytest.mark.parametrize(("height", "width"), [(96, 160), (40, 33), (512, 300)])
def test_the_overlay_is_the_picture_with_a_bar(scale, height, width):
    found = HeatMap((Part(grid(6, 10), 0, 0, height, width),), 0.0, height, width, lambda raw: raw, scale)
    picture = overlay(torch.rand(3, height, width), found)
    assert picture.mode == "RGB"
    assert picture.width == width
    assert height < picture.height <= height + max(18, height // 8)
    plain = overlay(torch.rand(3, height, width).mul(float("nan")), found, share=None)
    assert plain.size == picture.size


def test_a_flat_map_does_not_shout():
    """Where nothing differs the colours' ends are a tenth of the scale apart, and no place is coloured as the worst."""
    found = heat_map(Part(torch.full((6, 10), 1e-9, dtype=torch.float64), 0, 0, 96, 160))
    picture = np.asarray(overlay(torch.full((3, 96, 160), 0.5), found, share=None))[:96].astype(int)
    assert np.ptp(picture.reshape(-1, 3), axis=0).max() <= 2


def test_another_picture_is_refused():
    with pytest.raises(BadInput, match="own picture"):
        overlay(torch.rand(3, 96, 159), heat_map(*PARTS))


def test_lightness_rises_steadily():
    colours = coloured(torch.linspace(0, 1, 200)[None])[:, 0].double()
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = (torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)[:, None] * linear).sum(0)
    lightness = torch.where(luminance > 0.008856, 116 * luminance.pow(1 / 3) - 16, 903.3 * luminance)
    steps = lightness.diff()
    assert (steps > 0).all()
    assert float(steps.max()) < 4 * float(steps.mean())
