"""The measured parts of the shipped LGDM head's card.

Facts come from the head's metadata, ladders from ladders.json, which is what .ci/lgdm_ladders.py wrote, and rows on
test sets from benchmark.json, which is what `latent-critic benchmark --json` printed.
"""

from __future__ import annotations

from pathlib import Path

import readme
from card_parts import NOT_YET, interval, ladders_table, plain_table, read, tests_table
from latent_critic.core.heads.head_file import load_head

FOLDER = readme.ROOT / "core" / "assets" / "lgdm"
LADDERS = FOLDER / "ladders.json"


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    head = load_head(weights)
    meta, told = head.meta, head.meta.validation
    scale = "none: scores only rank" if meta.scale is None else f"0 to 100, {meta.calibrated_on}"
    settings = meta.settings
    levels = ", ".join(f"t = {level}" for level in settings["guidance"]["timesteps"])
    reducers, views = (" and ".join(settings[name]) for name in ("reducers", "views"))
    return plain_table(
        {
            "training pictures": f"{meta.pictures:,} of {meta.training_set}'s training part",
            "file": f"{weights.stat().st_size / 1e3:.0f} kB",
            "features": f"{head.layout.size:,}: {reducers} of {len(settings['taps'])} layers of the up blocks, "
            f"{levels}, {meta.kind.replace('_', ' ')}, {views}",
            "cross-validated": f"SRCC {interval(told, 'srcc')}, PLCC {told['plcc']:.3f}, RMSE {told['rmse']:.2f}, "
            f"n = {told['n']:,}; {told['how']}",
            "scale": scale,
            "size policy": meta.size_policy,
        }
    )


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "critic_ldm.safetensors"))
    rows, ladders = (read(FOLDER / name) for name in ("benchmark.json", LADDERS.name))
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else NOT_YET)
