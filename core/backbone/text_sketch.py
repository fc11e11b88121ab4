"""What hosts agree on to compare text encoders: which weights of a CLIP encoder are looked at, and under which key.

Hosts keep other parts of one checkpoint's encoder: diffusers' SD 2 lacks the last layer, projections are kept or left
out. The matrices of the first layers are in all of them, under the same names.
"""

from __future__ import annotations

#: Layers of an encoder that are sketched; SD 2's has 23 in one host and 24 in another.
FIRST_LAYERS = 8
#: CLIP-L, OpenCLIP-G, OpenCLIP-H.
LETTERS = ("l", "g", "h")
#: The identity's keys of the layer at which CLIP stops, and of what patches it; and their values where nobody set any.
LAYER_KEY, PATCHES_KEY = "text_layer", "text_patches"
AS_LOADED = {LAYER_KEY: "last", PATCHES_KEY: "plain"}


def text_key(letter: str) -> str:
    """The identity's key of CLIP-L (``l``), OpenCLIP-G (``g``), OpenCLIP-H (``h``)."""
    return f"text_{letter}"
