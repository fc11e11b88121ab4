"""Flux.2, in the sizes that the host knows: latents of 128 channels at stride 16, one language model for the text."""

from .row import FamilyRow

FLUX2 = FamilyRow(
    name="flux2",
    configs=frozenset({"Flux2"}),
    predictions=("flow",),
    in_channels=(128,),
    latent_channels=128,
    latent_stride=16,
    native_size=1024,
    text_layout="mistral3_24b|qwen3_4b|qwen3_8b",
    patch=1,
    guidance=3.5,
)
