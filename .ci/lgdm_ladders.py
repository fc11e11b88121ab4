"""Measure how the shipped LGDM head's score follows growing damage of every kind.

    .venv/bin/python .ci/lgdm_ladders.py    write core/assets/lgdm/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

from head_ladders import write_falls
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.heads.head_file import load_head
from latent_critic.core.hosts.diffusers.backbone import DiffusersBackbone
from latent_critic.core.hosts.diffusers.loading import load_pipeline
from latent_critic.core.methods.lgdm import SHIPPED, Lgdm
from lgdm_card import LADDERS

if __name__ == "__main__":
    write_falls(LADDERS, Lgdm(DiffusersBackbone(load_pipeline("embedded", "cpu")), load_head(SHIPPED)), KINDS)
