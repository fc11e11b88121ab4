"""The measured parts of the shipped GenzIQA head's card; .ci/cards.py writes them.

Facts come from the metadata of critic_ldm.safetensors, the levels and zero-shot from check.json, which is what
`latent-critic train genziqa-check --out` wrote, rows on test sets from benchmark.json, which is what `latent-critic
benchmark --json` printed, other trainings from tried.json, which is what `latent-critic train genziqa-beside --out`
wrote, ladders from ladders.json, which is what .ci/genziqa_ladders.py wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import readme
from card_parts import NOT_YET, interval, ladders_table, plain_table, read, tests_table
from safetensors import safe_open

FOLDER = readme.ROOT / "core" / "assets" / "genziqa"
LADDERS = FOLDER / "ladders.json"


def facts_table(weights: Path) -> str:
    """What the file says of itself."""
    with safe_open(weights, framework="np") as handle:
        found = json.loads(handle.metadata()["latent_critic_prompts"])
        count = sum(handle.get_slice(name).get_shape()[0] for name in handle.keys() if name.startswith("context."))  # noqa: SIM118
        rank = max(handle.get_slice(name).get_shape()[0] for name in handle.keys() if name.endswith(".down"))  # noqa: SIM118
    settings, (good, bad) = found["settings"], found["texts"]
    training = settings["training"]
    rows = {
        "training pictures": f"{found['pictures']:,} of {found['training_set']}'s training part",
        "file": f"{weights.stat().st_size / 1e3:.0f} kB, fp16",
        "learned": f"{count} context vectors before “{good}” and “{bad}”, LoRA of rank {rank}",
        "steps": f"{training['steps']:,} of {training['batch']} pictures{_ladders_told(training)} at rate "
        f"{training['rate']:g}; kept: the best validation's, step {found['validation']['step']}",
        "held back": _held_back_told(training),
        "noise levels": ", ".join(map(str, settings["timesteps"])),
        "noise-error bias": "left out" if settings["bias_weight"] == 0 else f"weight {settings['bias_weight']:g}",
        "scale": "none: scores only rank" if found["calibrated_on"] is None else f"0 to 100, {found['calibrated_on']}",
        "size policy": found["size_policy"],
    }
    return plain_table(rows)


def _held_back_told(training: dict[str, Any]) -> str:
    alike, share = "content" if training["by_content"] else "group", training["share"]
    if "unseen" not in training:
        return f"{share:.0%} of the pictures, which chose the step too; no {alike} in both parts"
    return f"{share / 2:.0%} of the pictures to choose the step by, {share / 2:.0%} unseen; no {alike} in two parts"


def _ladders_told(training: dict[str, Any]) -> str:
    return f" and {training['ladders']} pairs, less and more damaged," if training.get("ladders") else ""


def check_table(found: dict[str, Any]) -> str:
    """On unseen pictures: few levels against the eight published ones, and the head beside zero-shot."""
    lines = [
        "| noise levels | timesteps | SRCC with people (95 %) | SRCC with the eight levels' ranking (95 %) |",
        "|---|---|---|---|",
    ]
    for row in found["levels"]:
        steps = ", ".join(map(str, row["timesteps"]))
        lines.append(f"| {row['levels']} | {steps} | {interval(row, 'srcc')} | {interval(row, 'with_published')} |")
    apart = found["difference"]
    return "\n".join(
        [
            *lines,
            "",
            "| scorer on the same pictures | SRCC with people (95 %) | PLCC |",
            "|---|---|--:|",
            *(
                f"| `{name}` | {interval(found[name], 'srcc')} | {found[name]['plcc']:.3f} |"
                for name in ("genziqa", "zero_shot")
            ),
            "",
            f"Difference of SRCC, paired: {apart['difference']:+.3f} ({apart['low']:+.3f} – {apart['high']:+.3f}), "
            f"n = {found['n']:,}.",
        ]
    )


def tried_table(rows: list[dict[str, Any]]) -> str:
    """Other trainings beside the shipped head, each on pictures that neither drew, whatever the sign."""
    lines = [
        "| training | SRCC (95 %) | shipped head (95 %) | difference, paired | pictures |",
        "|---|---|---|---|--:|",
    ]
    for row in rows:
        head, apart = row["head"], row["difference"]
        how = (
            f"{head['pictures']:,} pictures of {head['side']} px, {head['steps']:,} steps of {head['batch']} at rate "
            f"{head['rate']:g}, rank {head['rank']}{_ladders_told(head)}"
        )
        told = f"{apart['difference']:+.3f} ({apart['low']:+.3f} – {apart['high']:+.3f})"
        lines.append(f"| {how} | {interval(head, 'srcc')} | {interval(row['other'], 'srcc')} | {told} | {row['n']:,} |")
    return "\n".join(lines)


def card(before: str) -> str:
    """The card with its measured parts renewed."""
    after = readme.fill(before, "facts", facts_table(FOLDER / "critic_ldm.safetensors"))
    names = ("check.json", "benchmark.json", LADDERS.name, "tried.json")
    checked, rows, ladders, tried = (read(FOLDER / name) for name in names)
    after = readme.fill(after, "ladders", ladders_table(ladders) if ladders else NOT_YET)
    after = readme.fill(after, "tried", tried_table(tried) if tried else NOT_YET)
    after = readme.fill(after, "check", check_table(checked) if checked else NOT_YET)
    return readme.fill(after, "tests", tests_table(rows) if rows else NOT_YET)
