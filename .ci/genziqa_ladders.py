"""Measure how the shipped GenzIQA head's score follows growing damage of the commonest kinds.

    .venv/bin/python .ci/genziqa_ladders.py    write core/assets/genziqa/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from genziqa_card import LADDERS
from latent_critic.core.cli.ladders import count_falls, write_ladders
from latent_critic.core.files import write_text
from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
from latent_critic.core.hosts.diffusers.loading import load_pipeline
from latent_critic.core.images import load_image
from latent_critic.core.methods.genziqa import GenzIQA
from latent_critic.core.methods.genziqa_file import SHIPPED, load_genziqa

KINDS = ("gaussian_blur", "white_noise", "jpeg")


def main() -> None:
    """Measure and write."""
    scorer = GenzIQA(DiffusersBackbone(load_pipeline("embedded", "cpu")), load_genziqa(SHIPPED))
    kinds: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            steps = write_ladders(Path(scratch) / kind, (kind,))
            values = scorer.score([load_image(step.path) for step in steps]).values()
            fell, visible = count_falls(steps, values)
            kinds[kind] = {"fell": fell, "visible": visible}
    found = {"weights": scorer.spec.settings["weights"], "kinds": kinds}
    write_text(LADDERS, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
