"""Lumina Image 2: text and image in one sequence, Gemma 2 for the text."""

from .row import FamilyRow

LUMINA2 = FamilyRow(
    name="lumina2",
    configs=frozenset({"Lumina2"}),
    predictions=("flow",),
    in_channels=(16,),
    latent_channels=16,
    latent_stride=8,
    native_size=1024,
    text_layout="gemma2_2b",
    patch=2,
)
