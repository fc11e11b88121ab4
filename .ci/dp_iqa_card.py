"""The measured parts of the shipped DP-IQA head's card.

Facts come from the head's metadata, ladders from ladders.json, which is what .ci/dp_iqa_ladders.py wrote, what the head
brings as a teacher from teacher.json, which is what `latent-critic train judge --teacher … --report` wrote, and rows on
test sets from benchmark.json, which is what `latent-critic benchmark --json` printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import readme
from card_parts import NOT_YET, interval, ladders_table, plain_table, read, tests_table
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "dp_iqa"
LADDERS = FOLDER / "ladders.json"


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        found = json.loads(handle.metadata()["latent_critic_dp_iqa"])
        sizes = [handle.get_slice(name).get_shape() for name in handle.keys()]  # noqa: SIM118 (not a dict)
    shape, settings, validation = found["shape"], found["settings"], found["validation"]
    training, decoder = settings["training"], shape["decoder"]
    adapters = {"text": shape["text_hidden"], "image": shape["image_width"]}
    scale = "none: scores only rank" if found["scale"] is None else f"0 to 100, {found['calibrated_on']}"
    rows = {
        "training pictures": f"{found['pictures']:,} of {found['training_set']}'s training part",
        "file": f"{weights.stat().st_size / 1e3:.0f} kB, fp16; {sum(map(_count, sizes)):,} values",
        "adapters": " and ".join(name for name, size in adapters.items() if size) or "none",
        "decoder": f"{decoder['width']} channels from each of {len(decoder['channels'])} levels, "
        f"{decoder['cells']}×{decoder['cells']} cells, {decoder['hidden']} hidden units",
        "steps": f"{training['steps']:,} of {training['batch']} pictures at rate {training['rate']:g}; kept: the best "
        f"validation's, step {validation['step']}",
        "held back by content": f"SRCC {interval(validation, 'srcc')}, PLCC {validation['plcc']:.3f}, "
        f"RMSE {validation['rmse']:.2f}, n = {validation['n']:,}; it chose the step",
        "scale": scale,
        "size policy": found["size_policy"],
    }
    return plain_table(rows)


def _count(shape: list[int]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found


def teacher_table(found: dict[str, Any]) -> str:
    """The built-in judge's form with and without this teacher, on the same held-back pictures."""
    gain = found["gain"]
    rows = [
        f"| {words} | {interval(gain[name], 'srcc')} | {gain[name]['plcc']:.3f} |"
        for words, name in (("the judge alone", "alone"), ("the judge with the teacher", "taught"))
    ]
    told = f"{gain['difference']:+.4f} ({gain['low']:+.4f} – {gain['high']:+.4f})"
    verdict = "pays" if gain["pays"] else "does not pay, so nothing taught ships"
    return "\n".join(
        [
            "| head on the judge's features | SRCC with people (95 %) | PLCC |",
            "|---|---|--:|",
            *rows,
            "",
            f"{found['rated']:,} rated pictures, {gain['alone']['n']:,} of them held back by content; "
            f"{found['unrated']:,} unrated ones graded by the teacher alone. Difference of SRCC, paired: {told}: it "
            f"{verdict}.",
        ]
    )


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "critic_ldm.safetensors"))
    teacher, rows, ladders = (read(FOLDER / name) for name in ("teacher.json", "benchmark.json", LADDERS.name))
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else NOT_YET)
    after = readme.fill(after, "teacher", teacher_table(teacher) if teacher else NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else NOT_YET)
