"""Stable Diffusion 1.x: one CLIP-L, 512 pixels; fine-tunes with v-prediction included."""

from .row import FamilyRow

SD15 = FamilyRow(
    name="sd15",
    configs=frozenset({"SD15"}),
    predictions=("eps", "v"),
    in_channels=(4, 9),
    latent_channels=4,
    latent_stride=8,
    native_size=512,
    text_layout="clip_l",
)
