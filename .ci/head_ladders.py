"""How a shipped head's score follows growing damage: counted on the pictures of ``latent-critic demo --kinds …``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_critic.core.cli.ladders import count_falls, write_ladders
from latent_critic.core.files import write_text
from latent_critic.core.images import load_image


def write_falls(target: Path, scorer: Any, kinds: Sequence[str]) -> None:
    """Write the head's digest and, for each kind, in how many visible steps the score fell."""
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in kinds:
            steps = write_ladders(Path(scratch) / kind, (kind,))
            values = scorer.score([load_image(step.path) for step in steps]).values()
            fell, visible = count_falls(steps, values)
            found[kind] = {"fell": fell, "visible": visible}
    settings = scorer.spec.settings
    told = {"weights": settings.get("weights", settings.get("head")), "kinds": found}
    write_text(target, json.dumps(told, indent=2) + "\n")
