"""Views: shapes, coverage, bounds, and nothing enlarged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_critic.core.nets.views import MOST_CROPS, SIDE, crops, global_view, grid, mirrored


@given(st.integers(SIDE, 9000), st.integers(SIDE, 9000))
def test_crops_lie_inside_and_are_bounded(height, width):
    places = grid(height, width)
    assert 1 <= len(places) <= MOST_CROPS
    assert len(set(places)) == len(places)
    assert all(0 <= top <= height - SIDE and 0 <= left <= width - SIDE for top, left in places)
    assert places == grid(height, width)


@given(st.integers(SIDE, 768), st.integers(SIDE, 768))
def test_a_picture_of_up_to_three_crops_a_side_is_covered(height, width):
    seen = torch.zeros(height, width, dtype=torch.bool)
    for top, left in grid(height, width):
        seen[top : top + SIDE, left : left + SIDE] = True
    assert bool(seen.all())


def test_crops_are_the_pictures_own_pixels():
    image = torch.rand(3, 512, 512)
    found = crops(image)
    assert found.shape == (4, 3, SIDE, SIDE)
    assert torch.equal(found[3], image[:, 256:, 256:])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 1200), st.integers(1, 1200))
def test_views_of_any_size(height, width):
    image = torch.rand(3, height, width)
    view = global_view(image)
    assert min(view.shape[-2:]) == SIDE
    assert max(view.shape[-2:]) <= 2 * SIDE
    assert all(side % 32 == 0 for side in view.shape[-2:])
    assert crops(image).shape[1:] == (3, SIDE, SIDE)


def test_small_sides_are_mirrored_not_enlarged():
    image = torch.arange(3.0).view(1, 1, 3).expand(3, 300, 3) / 10
    row = mirrored(image)[0, 0]
    assert row[:9].mul(10).round().tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert row.shape == (SIDE,)


@pytest.mark.parametrize(("height", "width"), [(256, 4096), (4096, 256)])
def test_a_long_picture_keeps_its_scale(height, width):
    assert sorted(global_view(torch.rand(3, height, width)).shape[-2:]) == [256, 512]
    assert len(crops(torch.rand(3, height, width))) == MOST_CROPS


def test_the_global_view_of_a_256_px_picture_is_the_picture():
    image = torch.rand(3, SIDE, SIDE)
    assert torch.allclose(global_view(image)[0], image, atol=1e-6)
    assert torch.equal(crops(image)[0], image)
