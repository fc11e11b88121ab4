"""The size policy: the family's area, the aspect kept, sides a multiple of the stride."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent_critic.core.backbone.contracts import Family
from latent_critic.core.errors import BadInput
from latent_critic.core.methods.native_size import native_policy, native_shape, to_native

SD15 = Family("sd15", "eps", 4, 8, 512, "clip_l")


@given(st.integers(8, 8000), st.floats(1 / 15.9, 15.9))
def test_area_aspect_and_stride(height, aspect):
    width = max(8, round(height * aspect))
    if max(height, width) > 16 * min(height, width):
        return
    h, w = native_shape(height, width, SD15)
    assert h % 8 == w % 8 == 0
    assert h * w == pytest.approx(512 * 512, rel=0.04)
    assert w / h == pytest.approx(width / height, rel=0.04)


def test_the_native_size_itself_is_left_alone():
    image = torch.rand(3, 512, 512)
    assert native_shape(512, 512, SD15) == (512, 512)
    assert torch.equal(to_native(image, (512, 512)), image)


def test_resizing_keeps_a_flat_image_flat_and_in_range():
    flat = to_native(torch.full((3, 90, 70), 0.25), (128, 96))
    assert flat == pytest.approx(torch.full((3, 128, 96), 0.25), abs=1e-5)
    hard = to_native((torch.rand(3, 64, 64) > 0.5).float(), (96, 96))
    assert hard.min() >= 0
    assert hard.max() <= 1


def test_another_side_is_said():
    assert native_shape(100, 100, SD15, 256) == (256, 256)
    assert "256×256" in native_policy(SD15, 256)
    assert "512×512" in native_policy(SD15)


def test_too_long_is_refused():
    with pytest.raises(BadInput, match="16:1"):
        native_shape(10, 161, SD15)
