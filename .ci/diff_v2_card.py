"""The measured parts of the shipped DiffV2IQA head's card.

Facts come from the head's metadata, ladders from ladders.json, which is what .ci/diff_v2_ladders.py wrote, and rows on
test sets from benchmark.json, which is what `latent-critic benchmark --json` printed.
"""

from __future__ import annotations

import json
from pathlib import Path

import readme
from card_parts import NOT_YET, interval, ladders_table, plain_table, read, tests_table
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "diff_v2_iqa"
LADDERS = FOLDER / "ladders.json"


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        found = json.loads(handle.metadata()["latent_critic_diff_v2_iqa"])
        values = sum(handle.get_tensor(name).size for name in handle.keys())  # noqa: SIM118 (not a dict)
    settings, shape, validation = found["settings"], found["shape"], found["validation"]
    training, vcg = settings["training"], shape["vcg"]
    return plain_table(
        {
            "training pictures": f"{found['pictures']:,} of {found['training_set']}'s training part",
            "file": f"{weights.stat().st_size / 1e3:.0f} kB, fp16; {values:,} values",
            "VCG": f"maps of the built-in judge's network in place of ViT-B/8's, {vcg['grid']}×{vcg['grid']} patches, "
            f"widths {vcg['widths'][0]} and {vcg['widths'][1]}",
            "VDA": "vectors of the built-in judge's network in place of ResNet50's, times "
            + ("a learned weight" if shape["learned"] else f"{shape['weight']:g}"),
            "steps": f"{training['steps']:,} of {training['batch']} pictures at rate {training['rate']:g}; the last "
            "averaged weights, nothing was selected",
            "held back by content": f"SRCC {interval(validation, 'srcc')}, PLCC {validation['plcc']:.3f}, "
            f"RMSE {validation['rmse']:.2f}, n = {validation['n']:,}",
            "scale": f"0 to 100, {found['calibrated_on']}",
            "size policy": found["size_policy"],
        }
    )


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "head.safetensors"))
    rows, ladders = (read(FOLDER / name) for name in ("benchmark.json", LADDERS.name))
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else NOT_YET)
