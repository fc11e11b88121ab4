"""Ladders of damage: range, determinism, growing distance, errors, and independent implementations."""

import cv2
import numpy as np
import pytest
import torch
from latent_critic.core.data.distortions import KINDS, SEVERITIES, distort
from latent_critic.core.errors import BadInput
from skimage import data
from skimage.metrics import structural_similarity


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[100:292, 120:312].copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("kind", KINDS)
def test_a_ladder_goes_down_and_repeats(picture, kind):
    kept = picture.clone()
    likeness = []
    for severity in SEVERITIES:
        damaged = distort(picture, kind, severity, seed=3)
        assert damaged.shape == picture.shape
        assert damaged.dtype == torch.float32
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        assert torch.equal(damaged, distort(picture, kind, severity, seed=3))
        likeness.append(structural_similarity(picture.numpy(), damaged.numpy(), channel_axis=0, data_range=1.0))
    assert torch.equal(picture, kept), "the caller's picture was changed"
    assert all(later < earlier for earlier, later in zip([1.0, *likeness], likeness, strict=False)), likeness
    assert likeness[0] > 0.7
    assert likeness[-1] < 0.75


def test_severity_zero_is_the_picture(picture):
    untouched = distort(picture, "jpeg", 0)
    assert torch.equal(untouched, picture)
    assert untouched.data_ptr() != picture.data_ptr()


def test_noise_depends_on_the_seed(picture):
    assert not torch.equal(distort(picture, "white_noise", 2, seed=1), distort(picture, "white_noise", 2, seed=2))


def test_blur_agrees_with_opencv(picture):
    theirs = cv2.GaussianBlur(
        picture.permute(1, 2, 0).numpy(), (15, 15), sigmaX=2.5, sigmaY=2.5, borderType=cv2.BORDER_REPLICATE
    )
    ours = distort(picture, "gaussian_blur", 3).permute(1, 2, 0).numpy()
    assert np.abs(theirs[10:-10, 10:-10] - ours[10:-10, 10:-10]).max() < 5e-3  # radius 7 there, 8 here


def test_noise_has_the_stated_deviation():
    grey = torch.full((3, 200, 200), 0.5)
    assert (distort(grey, "white_noise", 2, seed=5) - 0.5).std() == pytest.approx(0.06, rel=0.02)


def test_a_single_pixel_survives_every_kind():
    for kind in KINDS:
        assert torch.isfinite(distort(torch.full((3, 1, 1), 0.5), kind, 5)).all()


@pytest.mark.parametrize(
    ("kind", "severity", "shape"), [("rust", 1, (3, 8, 8)), ("jpeg", 6, (3, 8, 8)), ("jpeg", 1, (8, 8))]
)
def test_bad_input_is_one_clear_error(kind, severity, shape):
    with pytest.raises(BadInput, match="Expected"):
        distort(torch.zeros(shape), kind, severity)
