"""Measure how the shipped GenzIQA head's score follows growing damage of the commonest kinds.

    .venv/bin/python .ci/genziqa_ladders.py    write core/assets/genziqa/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

from genziqa_card import LADDERS
from head_ladders import write_falls
from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
from latent_critic.core.hosts.diffusers.loading import load_pipeline
from latent_critic.core.methods.genziqa import GenzIQA
from latent_critic.core.methods.genziqa_file import SHIPPED, load_genziqa

KINDS = ("gaussian_blur", "white_noise", "jpeg")


def main() -> None:
    """Measure and write."""
    scorer = GenzIQA(DiffusersBackbone(load_pipeline("embedded", "cpu")), load_genziqa(SHIPPED))
    write_falls(LADDERS, scorer, KINDS)


if __name__ == "__main__":
    main()
