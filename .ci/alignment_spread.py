"""Measure how far Prompt Alignment's numbers lie apart on the embedded model: the spread that blends divide them by.

    .venv/bin/python .ci/alignment_spread.py BIQ2021_DIR    write core/assets/genziqa/alignment.json

Forty pictures of the training part, drawn by a seed, each with the same eight prompts: the standard deviation over the
pictures within a prompt, pooled over the prompts.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from latent_critic.core.data.loaders import load
from latent_critic.core.files import write_text
from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
from latent_critic.core.hosts.diffusers.loading import load_pipeline
from latent_critic.core.images import load_image
from latent_critic.core.methods.alignment import AlignmentOptions, PromptAlignment
from latent_critic.core.methods.alignment_spread import MEASURED, pooled_spread

PICTURES = 40
PROMPTS = (
    "a portrait of a person", "a street at night", "a green forest", "a dog in the grass", "a plate of food",
    "a house by the sea", "a red car", "mountains under a blue sky",
)  # fmt: skip


def main(folder: str) -> None:
    """Measure and write."""
    data = load("biq2021", folder).part("train")
    places = np.random.default_rng(0).permutation(len(data.images))[:PICTURES]
    images = [load_image(data.images[place].path) for place in places]
    backbone, options = DiffusersBackbone(load_pipeline("embedded", "cpu")), AlignmentOptions(spread=1.0)
    values = []
    for prompt in PROMPTS:
        found = PromptAlignment(backbone, options, prompt).score(images).values()
        values.append([value for value in found if value is not None])
    told = {
        "backbone": backbone.fingerprint.to_text(),
        "timesteps": list(options.timesteps),
        "side": options.side,
        "spread": round(pooled_spread(values), 5),
        "by_prompt": {
            prompt: round(float(np.std(row, ddof=1)), 5) for prompt, row in zip(PROMPTS, values, strict=True)
        },
        "pictures": len(images),
        "data": f"{data.name}, training part",
    }
    write_text(MEASURED, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
