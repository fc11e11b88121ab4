"""Measure how the shipped DP-IQA head's score follows growing damage of every kind.

    .venv/bin/python .ci/dp_iqa_ladders.py    write core/assets/dp_iqa/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

from dp_iqa_card import LADDERS
from head_ladders import write_falls
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
from latent_critic.core.hosts.diffusers.loading import load_pipeline
from latent_critic.core.methods.dp_iqa import DpIqa
from latent_critic.core.methods.dp_iqa_file import SHIPPED, load_dp_iqa

if __name__ == "__main__":
    write_falls(LADDERS, DpIqa(DiffusersBackbone(load_pipeline("embedded", "cpu")), load_dp_iqa(SHIPPED)), KINDS)
