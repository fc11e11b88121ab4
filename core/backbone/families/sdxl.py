"""Stable Diffusion XL and its smaller distillations: CLIP-L and OpenCLIP-G, pooled text and size conditions."""

from .row import FamilyRow

SDXL = FamilyRow(
    name="sdxl",
    configs=frozenset({"SDXL", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B"}),
    predictions=("eps", "v", "flow"),
    in_channels=(4, 9),
    latent_channels=4,
    latent_stride=8,
    native_size=1024,
    text_layout="clip_l+clip_g",
)
