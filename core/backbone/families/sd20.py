"""Stable Diffusion 2.x: one OpenCLIP-H; the base checkpoints predict eps at 512 pixels, the others v at 768."""

from dataclasses import replace

from .row import FamilyRow

SD20 = FamilyRow(
    name="sd20",
    configs=frozenset({"SD20"}),
    predictions=("eps",),
    in_channels=(4, 9),
    latent_channels=4,
    latent_stride=8,
    native_size=512,
    text_layout="clip_h",
)
SD20_V = replace(SD20, predictions=("v",), native_size=768)
