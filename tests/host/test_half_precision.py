"""zero_shot in half precision ranks as in full precision. --log-cli-level=INFO shows the figures."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import spearmanr
from skimage import data

pytestmark = pytest.mark.host
logger = logging.getLogger(__name__)


def blurred(picture, radius):
    return picture.filter(ImageFilter.GaussianBlur(radius))


def noisy(picture, spread):
    values = np.asarray(picture, dtype=np.float64)
    return Image.fromarray(
        (values + np.random.default_rng(0).normal(0, spread, values.shape)).clip(0, 255).astype("uint8")
    )


def compressed(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def pale(picture, factor):
    return ImageEnhance.Contrast(picture).enhance(factor)


def enlarged(picture, side):
    return picture.resize((side, side)).resize(picture.size, Image.Resampling.BICUBIC)


def pictures(side=256):
    """Twelve pictures [3, side, side]: four motifs, each in three states."""
    motifs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    states = [
        [(blurred, 1), (blurred, 4), (noisy, 10)],
        [(noisy, 40), (compressed, 30), (compressed, 6)],
        [(pale, 1.0), (pale, 0.3), (enlarged, 32)],
        [(pale, 1.0), (enlarged, 100), (noisy, 20)],
    ]
    found = []
    for motif, damages in zip(motifs, states, strict=True):
        small = Image.fromarray(motif).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        found += [torch.from_numpy(np.array(damage(small, much))).movedim(-1, 0) / 255 for damage, much in damages]
    return found


def error_in_spreads(exact, half):
    """The largest error, in standard deviations of the exact values over the pictures."""
    return float(np.abs(np.subtract(half, exact)).max() / np.std(exact))


def compare(name, exact, half):
    """The rank agreement of two lists of values; logged with the error."""
    srcc = float(spearmanr(exact, half).statistic)
    logger.info("%s: SRCC %.3f, largest error %.3f of the spread", name, srcc, error_in_spreads(exact, half))
    return srcc


@pytest.fixture
def scores(comfyui, monkeypatch):
    """Scores of the trained embedded model with its denoiser in a dtype."""
    from comfy import model_management
    from latent_critic.core.hosts.comfyui import embedded
    from latent_critic.core.hosts.comfyui.backbone import ComfyBackbone
    from latent_critic.core.methods.zero_shot import ZeroShot, ZeroShotOptions

    def score(dtype):
        monkeypatch.setattr(model_management, "unet_dtype", lambda *args, **kwargs: dtype)
        monkeypatch.setattr(model_management, "unet_manual_cast", lambda *args, **kwargs: None)
        backbone = ComfyBackbone(embedded.load_model(), embedded.load_clip(), embedded.load_vae())
        assert backbone._patcher.model.diffusion_model.dtype == dtype
        # One level at half the native side: CPUs that emulate half precision need minutes for more.
        return ZeroShot(backbone, options=ZeroShotOptions(side=128, timesteps=(57,))).score(pictures())

    return score


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_trained_embedded_model_ranks_alike(scores, dtype):
    exact, half = scores(torch.float32), scores(dtype)
    for signal in ("noise", "attention"):
        of_signal = [[score.attributes[signal] for score in batch] for batch in (exact, half)]
        assert compare(f"{dtype} {signal}", *of_signal) > 0.9
    assert compare(f"{dtype} value", exact.values(), half.values()) > 0.95
    assert error_in_spreads(exact.values(), half.values()) < 0.35
