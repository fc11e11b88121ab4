"""What a damaged crop is called: the words from which the text encoder learns sharp and blurry, clean and noisy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: Damage kind → the words for it. The first word of a clean picture's list is its antonym.
WORDS: dict[str, tuple[str, ...]] = {
    "gaussian_blur": ("blurry", "out of focus", "soft"),
    "motion_blur": ("blurry", "motion blur", "shaken"),
    "white_noise": ("noisy", "grainy"),
    "impulse_noise": ("noisy", "speckled"),
    "jpeg": ("jpeg artifacts", "compressed", "blocky"),
    "downscale": ("low resolution", "blurry", "upscaled"),
    "pixelate": ("pixelated", "low resolution"),
    "contrast": ("low contrast", "faded", "dull"),
    "darken": ("dark", "underexposed"),
    "overexpose": ("overexposed", "too bright"),
    "quantise": ("banding", "posterized"),
}
CLEAN = ("sharp", "clean", "high resolution", "well exposed", "detailed")
GOOD = ("good photo", "high quality", "good quality", "best quality")
BAD = ("bad photo", "low quality", "bad quality", "worst quality")
_DEGREES = ("slightly", "a bit", "", "very", "extremely")
_STYLES = ("illustration", "abstract")


def caption(kind: str, severity: int, content: str, generator: torch.Generator) -> str:
    """A caption such as ``"bad photo, very blurry, landscape"``.

    Args:
        kind: Damage kind; ignored at severity 0.
        severity: 0 (clean) to 5.
        content: What the source says that the picture shows, or "".
        generator: Draws the wording.
    """
    parts = [_clean_words(generator)] if severity == 0 else [_damage_words(kind, severity, generator)]
    if severity == 0 or severity >= 3:
        overall = _pick(GOOD if severity == 0 else BAD, generator)
        parts.insert(int(_chance(generator) < 0.5), overall)
    if content:
        parts.append(content if content in _STYLES or _chance(generator) < 0.5 else f"photo of {_article(content)}")
    return ", ".join(parts)


def _clean_words(generator: torch.Generator) -> str:
    first = _pick(CLEAN, generator)
    second = _pick(CLEAN, generator)
    return first if first == second else f"{first}, {second}"


def _damage_words(kind: str, severity: int, generator: torch.Generator) -> str:
    degree = _DEGREES[severity - 1]
    return f"{degree} {_pick(WORDS[kind], generator)}".strip()


def _article(content: str) -> str:
    return f"{'an' if content[0] in 'aeiou' else 'a'} {content}"


def _pick(words: Sequence[str], generator: torch.Generator) -> str:
    return words[int(torch.randint(len(words), (), generator=generator))]


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
