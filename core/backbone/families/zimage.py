"""Z-Image: Lumina 2's network with text and image padded to multiples of 32 tokens, Qwen 3 for the text."""

from .row import FamilyRow

ZIMAGE = FamilyRow(
    name="zimage",
    configs=frozenset({"ZImage"}),
    predictions=("flow",),
    in_channels=(16,),
    latent_channels=16,
    latent_stride=8,
    native_size=1024,
    text_layout="qwen3_4b",
    patch=2,
)
