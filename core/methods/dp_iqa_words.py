"""DP-IQA's text: every quality × scene × distortion as a sentence. The lists are the published ones."""

from __future__ import annotations

from itertools import product

QUALITIES = ("bad", "poor", "fair", "good", "perfect")
SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
DISTORTIONS = (
    "jpeg2000 compression",
    "jpeg compression",
    "white noise",
    "gaussian blur",
    "fastfading",
    "fnoise",
    "contrast",
    "lens",
    "motion",
    "diffusion",
    "shifting",
    "color quantization",
    "oversaturation",
    "desaturation",
    "white with color",
    "impulse",
    "multiplicative",
    "white noise with denoise",
    "brighten",
    "darken",
    "shifting the mean",
    "jitter",
    "noneccentricity patch",
    "pixelate",
    "quantization",
    "color blocking",
    "sharpness",
    "realistic blur",
    "realistic noise",
    "underexposure",
    "overexposure",
    "realistic contrast change",
    "other realistic",
)


def sentences() -> tuple[str, ...]:
    """The 1485 sentences, one token of the sequence each."""
    return tuple(
        f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
        for quality, scene, distortion in product(QUALITIES, SCENES, DISTORTIONS)
    )
