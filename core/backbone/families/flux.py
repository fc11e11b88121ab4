"""Flux.1, dev and schnell: joint attention, then single streams; dev is told a distilled guidance."""

from .row import FamilyRow

FLUX = FamilyRow(
    name="flux",
    configs=frozenset({"Flux", "FluxSchnell"}),
    predictions=("flow",),
    in_channels=(16,),
    latent_channels=16,
    latent_stride=8,
    native_size=1024,
    text_layout="clip_l+t5xxl",
    patch=2,
    guidance=3.5,
    words_from="t5xxl",
)
