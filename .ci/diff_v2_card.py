"""The measured parts of the shipped DiffV2IQA head's card.

Facts come from the head's metadata, ladders from ladders.json, which is what .ci/diff_v2_ladders.py wrote, what
restoration and each branch add from study.json, which is what `latent-critic train diff-v2-iqa --study` wrote, and rows
on test sets and held-out ladders from benchmark.json and held_out.json, which `latent-critic benchmark --json` wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import readme
from card_parts import NOT_YET, held_out_table, interval, ladders_table, plain_table, read, tests_table
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "diff_v2_iqa"
LADDERS = FOLDER / "ladders.json"
#: Share of visible steps of damage in which a score should fall.
_BAR = 0.95


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


def study_table(found: dict[str, Any]) -> str:
    """The whole head beside those that lack a part, on the same held-back pictures."""
    lines = ["| head | SRCC with people (95 %) | PLCC | SRCC of both less this, paired (95 %) |", "|---|---|--:|---|"]
    for row in found["heads"]:
        told, ahead = row["agreement"], row["whole_less_this"]
        apart = "" if ahead is None else f"{ahead['difference']:+.3f} ({ahead['low']:+.3f} – {ahead['high']:+.3f})"
        lines.append(f"| {row['head']} | {interval(told, 'srcc')} | {told['plcc']:.3f} | {apart} |")
    compared = [row for row in found["heads"] if row["whole_less_this"]]
    ahead = [row["head"] for row in compared if row["whole_less_this"]["low"] > 0]
    alike = [row["head"] for row in compared if row["whole_less_this"]["low"] <= 0 <= row["whole_less_this"]["high"]]
    count = found["heads"][0]["agreement"]["n"]
    lines += [
        "",
        f"{found['steps']:,} steps each, {count:,} pictures. Both branches on restored pictures are better than:",
    ]
    lines[-1] += f" {', '.join(ahead) or 'none'}. No better or worse beyond chance than: {', '.join(alike) or 'none'}."
    return "\n".join(lines)


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "head.safetensors"))
    rows, ladders = (read(FOLDER / name) for name in ("benchmark.json", LADDERS.name))
    study, held_out = (read(FOLDER / f"{name}.json") for name in ("study", "held_out"))
    after = readme.fill(after, "study", study_table(study) if study else NOT_YET)
    told = held_out_table(held_out, "diff_v2_iqa", _BAR) if held_out else NOT_YET
    after = readme.fill(after, "held_out", told)
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else NOT_YET)
