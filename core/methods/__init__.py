"""Scorers, one per file, and the registry of them: what each needs, what its numbers mean, where it comes from.

Standard library only, so that listing the methods never loads a network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BadInput

#: Diffusion model families with a U-Net, and all; core/backbone/families holds the rows.
UNET_FAMILIES = ("sd15", "sd20", "sdxl")
FAMILIES = (*UNET_FAMILIES, "sd3", "flux", "flux2", "lumina2", "zimage", "qwen_image", "wan21")


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One scorer of the registry.

    Attributes:
        name: Registry name, as ``ScoreSpec.name`` and the command line spell it.
        needs: What the scorer must be given: of ``image``, ``prompt``, ``model``, ``clip``, ``vae``, ``head``.
        calibrated: Whether its numbers are 0–100 against people's ratings. False means that they rank images only.
        families: Diffusion model families that it runs on; empty when it uses no diffusion model.
        source: The paper that it is reimplemented after, or "ours".
        available: Whether this release contains it.
    """

    name: str
    needs: tuple[str, ...]
    calibrated: bool
    families: tuple[str, ...]
    source: str
    available: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {**asdict(self), "needs": list(self.needs), "families": list(self.families)}


METHODS: tuple[MethodInfo, ...] = (
    MethodInfo(
        "lgdm",
        ("image", "model", "vae", "clip", "head"),
        True,
        FAMILIES,
        "LGDM with perceptual manifold guidance: reimplemented after Saini, Liao, Ye and Bovik, Latent Guidance in "
        "Diffusion Models for Perceptual Evaluations, 2025 (arXiv 2506.00327), not by its authors",
        True,
    ),
    MethodInfo(
        "genziqa",
        ("image", "model", "vae", "clip", "head"),
        True,
        UNET_FAMILIES,
        "GenzIQA: reimplemented after De, Mitra and Soundararajan, Generalized Image Quality Assessment using "
        "Prompt-Guided Latent Diffusion Models, 2024 (arXiv 2406.04654), not by its authors",
        True,
    ),
    MethodInfo(
        "dp_iqa",
        ("image", "model", "vae", "clip", "head"),
        True,
        UNET_FAMILIES,
        "DP-IQA: reimplemented after Utilizing Diffusion Prior for Blind Image Quality Assessment in the Wild, 2024 "
        "(arXiv 2405.19996), not by its authors",
        True,
    ),
    MethodInfo(
        "diff_v2_iqa",
        ("image", "head"),
        True,
        FAMILIES,
        "DiffV2IQA: reimplemented after Wang et al., Diffusion Model Based Visual Compensation Guidance and Visual "
        "Difference Analysis for No-Reference Image Quality Assessment, 2024 (arXiv 2402.14401), not by its authors",
        True,
    ),
    MethodInfo("judge", ("image",), True, (), "ours: a small CNN that ships, trained on rated photographs", True),
    MethodInfo(
        "zero_shot",
        ("image", "model", "clip", "vae"),
        False,
        FAMILIES,
        "ours: antonym prompts on the loaded model without training; its two signals are those of GenzIQA "
        "(arXiv 2406.04654), reimplemented, not by its authors",
        True,
    ),
)


def method(name: str) -> MethodInfo:
    """The registry's row of this name.

    Raises:
        BadInput: no such method.
    """
    for info in METHODS:
        if info.name == name:
            return info
    known = ", ".join(info.name for info in METHODS)
    raise BadInput(f"a method of {known}", repr(name), "Use one of these names.")
