"""Measure how the judge's score follows growing damage of every kind, and what it makes of pure noise.

    .venv/bin/python .ci/judge_ladders.py    write core/assets/judge/ladders.json; then run .ci/cards.py

The pictures are those of `latent-critic demo --kinds …`, and the falls are counted as it counts them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from cards import LADDERS
from latent_critic.core.cli.ladders import count_falls, write_ladders
from latent_critic.core.cli.scoring import ScoreRequest, score_files
from latent_critic.core.data.distortions import KINDS
from latent_critic.core.files import write_text
from latent_critic.core.methods.judge import Judge

NOISE_PICTURES = 8


def main() -> None:
    """Measure and write."""
    kinds: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            steps = write_ladders(Path(scratch) / kind, (kind,))
            batch = score_files(ScoreRequest(tuple(str(step.path) for step in steps), device="cpu"))
            fell, visible = count_falls(steps, batch.values())
            kinds[kind] = {"fell": fell, "visible": visible}
    judge = Judge.load()
    draw = torch.Generator().manual_seed(0)
    noise = [value for value in judge.score(torch.rand(NOISE_PICTURES, 3, 512, 512, generator=draw)).values() if value]
    found = {
        "weights": judge.spec.settings["weights"],
        "kinds": kinds,
        "uniform_noise": {"pictures": len(noise), "lowest": min(noise), "highest": max(noise)},
    }
    write_text(LADDERS, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
