"""The embedded model: SD 1's architecture, small, on latents of eight channels at 256 pixels."""

from .row import FamilyRow

CRITIC_LDM = FamilyRow(
    name="critic_ldm",
    configs=frozenset({"CriticLDM"}),
    predictions=("eps", "v"),
    in_channels=(8,),
    latent_channels=8,
    latent_stride=8,
    native_size=256,
    text_layout="clip_l",
)
