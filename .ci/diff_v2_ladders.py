"""Measure how the shipped DiffV2IQA head's score follows growing damage of every kind.

    .venv/bin/python .ci/diff_v2_ladders.py    write core/assets/diff_v2_iqa/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

from diff_v2_card import LADDERS
from head_ladders import write_falls
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.methods.diff_v2_iqa_file import load_diff_v2
from latent_critic.core.methods.diff_v2_iqa_make import SHIPPED, make_diff_v2

if __name__ == "__main__":
    write_falls(LADDERS, make_diff_v2(load_diff_v2(SHIPPED)), KINDS)
