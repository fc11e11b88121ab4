"""Sketches of a CLIP's encoders that a diffusers pipeline of the same checkpoint has too."""

from __future__ import annotations

from typing import Any

from ...backbone.text_sketch import FIRST_LAYERS, LETTERS, text_key
from . import facts


def text_sketches(clip: Any) -> dict[str, str]:
    """A sketch of each CLIP encoder's first layers, by the key that both hosts use; none for other encoders."""
    found = {}
    for letter in LETTERS:
        encoder = getattr(clip.patcher.model, f"clip_{letter}", None)
        text_model = getattr(getattr(encoder, "transformer", None), "text_model", None)
        if text_model is not None:
            layers, key = text_model.encoder.layers[:FIRST_LAYERS], text_key(letter)
            prefix = f"clip_{letter}.transformer.text_model.encoder.layers."
            found[key] = facts.sketch_of(clip.patcher, layers, key, prefix).to_text()
    return found
