"""Stable Diffusion 3 and 3.5: joint attention of image and text, three text encoders, flow."""

from .row import FamilyRow

SD3 = FamilyRow(
    name="sd3",
    configs=frozenset({"SD3"}),
    predictions=("flow",),
    in_channels=(16,),
    latent_channels=16,
    latent_stride=8,
    native_size=1024,
    text_layout="clip_l+clip_g+t5xxl",
    patch=2,
)
