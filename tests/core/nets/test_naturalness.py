"""NIQE's statistics against scipy, and what they say of damage."""

import numpy as np
import pytest
import torch
from latent_critic.core.data.distortions import distort
from latent_critic.core.errors import BadInput, UnreadableFile
from latent_critic.core.nets.naturalness import FEATURES, CleanFit, Naturalness, aggd, mscn, patch_features
from scipy import ndimage, special, stats


def natural(seed, height=200, width=208):
    """A picture whose spectrum falls as natural ones do, 1/f."""
    draw = np.random.default_rng(seed)
    spectrum = np.fft.fft2(draw.normal(size=(3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    field = np.fft.ifft2(spectrum / frequency).real
    field = (field - field.mean()) / field.std() * 0.16 + 0.5
    return torch.from_numpy(field).float().clamp(0, 1)


@pytest.fixture(scope="module")
def clean():
    fit = CleanFit()
    for seed in range(16):
        fit.add(natural(seed))
    return fit.done()


def test_mscn_is_local_contrast_taken_away():
    luma = 255 * natural(0)[:1][None].double()
    found, deviation = mscn(luma)
    x = luma[0, 0].numpy()
    window = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    kernel = np.outer(window, window) / np.outer(window, window).sum()
    mean = ndimage.convolve(x, kernel, mode="nearest")
    spread = np.sqrt(np.abs(ndimage.convolve(x**2, kernel, mode="nearest") - mean**2))
    assert np.allclose(found[0, 0].numpy(), (x - mean) / (spread + 1), atol=1e-6)
    assert np.allclose(deviation[0, 0].numpy(), spread, atol=1e-6)


@pytest.mark.parametrize("shape", [0.8, 1.0, 2.0, 4.0])
def test_a_symmetric_sample_gives_its_shape_back(shape):
    rows = stats.gennorm.rvs(shape, size=(2, 60_000), random_state=0)
    alpha, below, above, mean = aggd(torch.from_numpy(rows))
    assert alpha.numpy() == pytest.approx(shape, rel=0.06)
    assert below.numpy() == pytest.approx(1.0, rel=0.05)
    assert above.numpy() == pytest.approx(1.0, rel=0.05)
    assert mean.numpy() == pytest.approx(0.0, abs=0.03)


def test_an_asymmetric_sample_gives_both_scales_back():
    draw = np.random.default_rng(0)
    half = np.abs(stats.gennorm.rvs(2.0, size=80_000, random_state=1))
    right = draw.random(80_000) < 3 / 4  # sides are as frequent as they are wide
    rows = torch.from_numpy(np.where(right, 3 * half, -half))[None]
    alpha, below, above, mean = (float(value) for value in aggd(rows))
    assert alpha == pytest.approx(2.0, rel=0.05)
    assert (below, above) == (pytest.approx(1.0, rel=0.05), pytest.approx(3.0, rel=0.05))
    assert mean == pytest.approx(2 * special.gamma(1.0) / special.gamma(0.5), rel=0.05)
    assert mean == pytest.approx(float(rows.mean()), rel=0.05)


def test_damage_is_less_natural_the_more_there_is(clean):
    image = natural(100)
    for kind in ("white_noise", "gaussian_blur"):
        forms = [clean.distance(distort(image, kind, severity)) for severity in (0, 2, 4)]
        assert forms[0] < forms[1] < forms[2], kind
    others = [clean.distance(natural(seed)) for seed in range(50, 54)]
    assert max(others) < clean.distance(distort(image, "white_noise", 3))


def test_features_are_one_row_a_patch_and_finite():
    for image in (natural(3, 97, 300), torch.zeros(3, 100, 100), torch.rand(3, 96, 96)):
        rows, sharp = patch_features(image)
        count = (image.shape[1] // 96) * (image.shape[2] // 96)
        assert rows.shape == (count, FEATURES)
        assert sharp.shape == (count,)
        assert torch.isfinite(rows).all()


def test_a_flat_picture_has_a_distance(clean):
    assert np.isfinite(clean.distance(torch.full((3, 96, 96), 0.5)))


def test_the_file(clean, tmp_path):
    path = tmp_path / "clean.safetensors"
    clean.save(path)
    assert path.stat().st_size < 10_000
    image = natural(7)
    assert Naturalness.load(path).distance(image) == pytest.approx(clean.distance(image), rel=1e-3)
    path.write_bytes(path.read_bytes()[:100])
    for broken in (path, tmp_path / "none.safetensors"):
        with pytest.raises(UnreadableFile, match="clean pictures"):
            Naturalness.load(broken)


def test_bad_input():
    with pytest.raises(BadInput, match="96×96"):
        patch_features(torch.rand(3, 95, 200))
    with pytest.raises(BadInput, match="sharp patches"):
        CleanFit().done()
