"""Qwen-Image: joint attention of image and text, Qwen 2.5 VL for the text, latents of one video frame."""

from .row import FamilyRow

QWEN_IMAGE = FamilyRow(
    name="qwen_image",
    configs=frozenset({"QwenImage"}),
    predictions=("flow",),
    in_channels=(64,),
    latent_channels=16,
    latent_stride=8,
    native_size=1328,
    text_layout="qwen25_7b",
    patch=2,
)
