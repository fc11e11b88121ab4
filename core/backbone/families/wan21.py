"""Wan 2.1, text to video: true cross-attention; a picture is a video of one frame. Trained from 480p up."""

from .row import FamilyRow

WAN21 = FamilyRow(
    name="wan21",
    configs=frozenset({"WAN21_T2V"}),
    predictions=("flow",),
    in_channels=(16,),
    latent_channels=16,
    latent_stride=8,
    native_size=640,
    text_layout="umt5xxl",
    patch=2,
)
